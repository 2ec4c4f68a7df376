"""What the client commands say to a running service: the routes that std_daq_client uses, with clear errors.

::

    DaqError
    ├── ServiceRefused (RuntimeError)   the service answered: no, and why
    └── Unreachable (OSError)    nobody answers, or not a std_daq service

A service on this machine is asked directly, whatever ``http_proxy`` says: no proxy could reach it,
and institutes set that for all their users. One elsewhere is asked through the proxy, as other
programs do, and an error says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daq_core.errors import DaqError, Unavailable
from daq_core.linux.network import is_loopback
from daq_core.token_file import read_token

if TYPE_CHECKING:
    import requests

ANSWER_WITHIN_S = 10.0  # start and stop included: the service bounds them to 5 s


class ServiceRefused(DaqError, RuntimeError):
    """The service did not do what was asked; the text is its message."""


class Unreachable(Unavailable):
    """No std_daq service answers at the address."""


class ServiceClient:
    """Usage: ``ServiceClient("http://127.0.0.1:5000").get("/writer/status", "writer")``.

    A service beyond loopback may want a token with what changes something; `token_file` holds it.
    """

    def __init__(self, url: str, token_file: Path | None = None) -> None:
        import requests  # half of what a command loads, and `serve` needs none of it

        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._warned: set[str] = set()
        # "" takes the place of what the environment has.
        self._proxies = dict.fromkeys(("http", "https", "all"), "") if _is_here(self.url) else None
        self._through = "" if self._proxies else _proxy_of(self.url)
        self._token = None if token_file is None else read_token(token_file)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token into what changes something; as `auth`, so that no .netrc takes its place."""
        if self._token is not None and request.method == "POST":
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def get(self, path: str, key: str) -> Any:
        """Return what an answer holds under a key."""
        return self._ask("GET", path)[key]

    def answer(self, path: str) -> dict[str, Any]:
        """Return a whole answer."""
        return self._ask("GET", path)

    def post(self, path: str, key: str, body: Mapping[str, Any]) -> Any:
        """Send an order; return what the answer holds under a key."""
        return self._ask("POST", path, data=json.dumps(dict(body)))[key]

    def _ask(self, method: str, path: str, data: str | None = None) -> dict[str, Any]:
        import requests

        try:
            response = self._session.request(
                method,
                self.url + path,
                data=data,
                headers={"Content-Type": "application/json"} if data else None,
                auth=self._authorize,
                proxies=self._proxies,
                allow_redirects=False,  # the token is for this address
                timeout=ANSWER_WITHIN_S,
            )
            answer = response.json()
        except requests.exceptions.JSONDecodeError:
            raise Unreachable(
                f"{self.url} is not a std_daq service (answer is not JSON){self._through}."
            ) from None
        except requests.exceptions.Timeout:
            raise Unreachable(
                f"{self.url} does not answer within {ANSWER_WITHIN_S:.0f} s{self._through}."
            ) from None
        except (requests.exceptions.RequestException, ValueError) as error:
            raise Unreachable(
                f"No service at {self.url} ({_reason(error)}){self._through}. Is it running? "
                "Give its address with --api-url or STD_DAQ_API_URL."
            ) from None
        if not isinstance(answer, dict) or "status" not in answer:
            raise Unreachable(
                f"{self.url} is not a std_daq service (HTTP {response.status_code}){self._through}."
            )
        if answer["status"] != "ok":
            raise ServiceRefused(
                str(answer.get("message", f"{self.url}{path} refuses, and does not say why."))
            )
        self._warn(str(answer.get("message", "")))
        return answer

    def _warn(self, message: str) -> None:
        """Print what a message warns of, each once: a command may ask the same thing many times."""
        _, warning, text = message.partition("Warning: ")
        if warning and text not in self._warned:
            self._warned.add(text)
            print(f"std-daq-ioc: {warning}{text}", file=sys.stderr)


def _is_here(url: str) -> bool:
    """Tell whether an address is of this machine alone."""
    with suppress(ValueError):
        host = (urlsplit(url).hostname or "").removesuffix(".")
        return is_loopback(host) or host.endswith(".localhost")
    return False


def _proxy_of(url: str) -> str:
    """Say which proxy the environment has for an address, "" for none; not with what password."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return ""
    where = proxy.rpartition("@")[2].rpartition("//")[2]
    return f", asked through the proxy {where} that http_proxy or its like names; no_proxy makes exceptions"


def _reason(error: BaseException) -> str:
    """Return the innermost reason: "Connection refused", not three layers of it."""
    while (inner := getattr(error, "reason", None) or error.__cause__ or error.__context__) is not None:
        if not isinstance(inner, BaseException):
            return str(inner)
        error = inner
    return getattr(error, "strerror", None) or str(error)
