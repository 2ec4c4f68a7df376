"""Who may do what by REST: a look at each request before any route sees it.

Reading is free for all who reach the port. What changes state is free on loopback;
beyond it, it needs the bearer token, or an address in a trusted network, for clients
that cannot send a token (``std_daq_client`` cannot). The address is the
connection's own: no header can make one trusted.

Two more looks are for web browsers, which carry out what any page tells them. The Host must be
an address or a known name, or another name's owner could point it at us (DNS
rebinding); and a request that changes state must not come from a page of another
origin, by its Origin or by its Sec-Fetch-Site, which browsers send with each request.

What is no HTTP request has no rules here, so it is refused: a route for WebSockets that
is added one day is not open by mistake.

Source: RFC 9110 (Host), RFC 3986 (its grammar), W3C Fetch Metadata Request Headers.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daq_core.linux.network import Network, is_in, is_loopback
from rest_bridge.envelope import STD_DAQ_ROUTES, log_refusal, refusal

READS = frozenset({"GET", "HEAD", "OPTIONS"})
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
OUR_OWN = frozenset({"same-origin", "none"})
"""What Sec-Fetch-Site is of our own pages, and of what a person has typed."""
POLICY_VIOLATION = 1008  # close code of a WebSocket, RFC 6455


@dataclass(frozen=True)
class Access:
    """The rules of one service.

    Parameters
    ----------
    bind : address that REST listens on
    token : the secret that a client must send; None: there is none, so none is accepted
    trusted_networks : who may change state without a token
    host_names : names, besides localhost, that clients know this service by
    """

    bind: str = "127.0.0.1"
    token: str | None = None
    trusted_networks: tuple[Network, ...] = ()
    host_names: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the port may change state: on loopback, unless there is a token."""
        return is_loopback(self.bind) and self.token is None

    def refuses(self, method: str, headers: Mapping[str, str], peer: str) -> Denial | None:
        """Return why a request is not let through, None when it is."""
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            return Denial(403, f"The Host {_shown(host)} is none of this service. See serve --allowed-hosts.")
        if method in READS:
            return None
        origin = headers.get("origin")
        if origin is not None and not _is_same(origin, host):
            return Denial(403, f"A web page of {_shown(origin)} may not change anything here.")
        site = headers.get("sec-fetch-site")
        if site is not None and site.strip().lower() not in OUR_OWN:
            return Denial(403, f"A web page of another origin ({_shown(site)}) may not change anything here.")
        if self.is_open or is_in(peer, self.trusted_networks) or self._holds_token(headers):
            return None
        if "authorization" in headers and self.token is not None:
            return Denial(401, "The token is not this service's. Is it the file that serve was given?")
        needed = "an address in serve --trusted-networks"
        if self.token is not None:
            needed = f"the service's token (--token-file), or {needed}"
        return Denial(401, f"A change needs {needed}; {peer or 'this client'} has none.")

    def _holds_token(self, headers: Mapping[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if self.token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host is an address, which no rebinding can make, or a name of ours."""
        name = _host_name(host)
        if name in self.host_names or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Denial:
    """Why a request was not let through."""

    http_status: int  # where it is not in std_daq's envelope
    message: str


class AccessCheck:
    """The middleware: answers what is refused, hands on what is not."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                peer = scope["client"][0] if scope["client"] else ""
                denial = self._access.refuses(scope["method"], Headers(scope=scope), peer)
                if denial is not None:
                    log_refusal(scope, denial.message)
                    await _answer(scope["path"], denial)(scope, receive, send)
                    return
            case "lifespan":  # of the server itself: nobody's request
                pass
            case "websocket":
                await send(
                    {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "no WebSockets here"}
                )
                return
            case other:
                raise ValueError(f"nobody has said who may do what by {_shown(str(other))}")
        await self._app(scope, receive, send)


def _answer(path: str, denial: Denial) -> Response:
    """Make the answer: std_daq's envelope on its routes, as its client shows no other's message."""
    if path.startswith(STD_DAQ_ROUTES):
        return refusal(denial.message)
    headers = {"WWW-Authenticate": "Bearer"} if denial.http_status == 401 else None
    return PlainTextResponse(denial.message + "\n", denial.http_status, headers)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port, brackets and the root's dot; "" when it is none."""
    found = HOST.fullmatch(host)
    if found is None or int(found[2] or 0) > 65535:
        return ""
    return found[1].strip("[]").lower().removesuffix(".")


def _is_same(origin: str, host: str | None) -> bool:
    """Tell whether a page comes from the very host and port that it now asks."""
    return host is not None and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _shown(text: str) -> str:
    return ascii(text[:80])
