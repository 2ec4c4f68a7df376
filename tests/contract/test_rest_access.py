"""Who may change things by REST: people who try to break in, by real connections of loopback.

A service beyond loopback is one whose rules were made for such an address; the
socket stays on loopback, where 127.0.0.1 plays a machine that is trusted and
127.0.0.2 one that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from std_daq_client import StdDaqClient
from std_daq_client.client import StdDaqAdminException

from daq_core.config import DaqConfig
from daq_core.linux.network import parse_networks
from ioc.program.client.service_client import ServiceClient, ServiceRefused
from ioc.program.ports import LOOPBACK
from rest_bridge import connection
from rest_bridge.access import Access, AccessCheck
from rest_bridge.app import make_app
from rest_bridge.server import RestServer
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq
from tests.processes.service import JUNGFRAU_2

BEYOND = "192.0.2.10"
STRANGER = "127.0.0.2"
TOKEN = "a-secret-that-nobody-guesses-0123456789"
COMMANDS = ("/writer/write_async", "/writer/write_sync", "/writer/stop", "/daq/config")
READS = ("/writer/status", "/daq/config", "/daq/stats", "/daq/logs/3", "/daq/deployment", "/docs")


class FromAddress(HTTPAdapter):
    """Connects from an address of one's choice."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **options)


class Guarded:
    """A REST server with rules, in front of a simulated DAQ."""

    def __init__(self, daq: SimulatedDaq, access: Access) -> None:
        self.daq = daq
        self.server = RestServer(make_app(OnlyDoor(daq), access=access), LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{self.server.port}"
        self.threads = ThreadPoolExecutor(max_workers=4)

    async def run(self, work: Any, *args: Any, **options: Any) -> Any:
        """Run what blocks in a thread, as a client elsewhere would be."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(work, *args, **options))

    async def ask(
        self, path: str, method: str = "POST", address: str = STRANGER, **options: Any
    ) -> requests.Response:
        def ask() -> requests.Response:
            with requests.Session() as session:
                session.trust_env = False
                session.mount("http://", FromAddress(address))
                return session.request(method, self.url + path, timeout=30, **options)

        return await self.run(ask)

    async def refuses(self, path: str = "/writer/write_async", **options: Any) -> str:
        """Demand that a start is refused and nothing happens; return why."""
        before = self.daq.snapshot.status, self.daq.snapshot.config
        answer = await self.ask(path, **options)
        assert answer.status_code == 200
        reply = answer.json()
        assert (reply["status"], set(reply)) == ("error", {"status", "message"})
        assert TOKEN not in answer.text
        assert (self.daq.snapshot.status, self.daq.snapshot.config) == before
        return str(reply["message"])

    def raw(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server.port), timeout=30)


@contextlib.asynccontextmanager
async def guarded(**rules: Any) -> AsyncIterator[Guarded]:
    async with SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as daq:
        rest = Guarded(daq, Access(**rules))
        task = asyncio.create_task(rest.server.run())
        await rest.server.started.wait()
        try:
            yield rest
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rest.threads.shutdown()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ------------------------------------------------------------------------------------ token


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(TOKEN.upper()),
        bearer("ünïcode".encode().decode("latin-1")),
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"token={TOKEN}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", COMMANDS)
async def test_without_the_token_nothing_is_changed(path: str, headers: dict[str, str]) -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        message = await rest.refuses(path, headers=headers, json={"bit_depth": 16})
        assert "token" in message


async def test_a_token_in_the_query_or_the_body_is_none() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        for options in ({"params": {"token": TOKEN, "access_token": TOKEN}}, {"json": {"token": TOKEN}}):
            assert "token" in await rest.refuses("/writer/stop", **options)


async def test_with_the_token_a_stranger_starts_and_stops_a_run(tmp_path: Path) -> None:
    request = {"output_file": str(tmp_path / "a.h5"), "n_images": 5}
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        for path, body in (("/writer/write_async", request), ("/writer/stop", {})):
            answer = await rest.ask(path, headers=bearer(TOKEN), json=body)
            assert answer.json()["status"] == "ok"


async def test_everybody_may_read() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        for path in READS:
            answer = await rest.ask(path, "GET")
            assert answer.status_code == 200
            assert path == "/docs" or answer.json()["status"] == "ok"


async def test_off_the_routes_of_std_daq_a_refusal_is_401() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
            answer = await rest.ask("/anything", method)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_service_on_loopback_with_a_token_wants_it_too() -> None:
    async with guarded(bind=LOOPBACK, token=TOKEN) as rest:
        await rest.refuses("/writer/stop", address=LOOPBACK)
        answer = await rest.ask("/writer/stop", address=LOOPBACK, headers=bearer(TOKEN))
        assert answer.json()["status"] == "ok"


async def test_without_a_token_none_opens_the_door() -> None:
    async with guarded(bind=BEYOND) as rest:
        for token in ("", "None", TOKEN):
            await rest.refuses("/writer/stop", headers=bearer(token))


async def test_the_client_commands_send_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        with pytest.raises(ServiceRefused, match="--token-file"):
            await rest.run(ServiceClient(rest.url).post, "/writer/stop", "writer", {})
        known = ServiceClient(rest.url, file)
        assert (await rest.run(known.post, "/writer/stop", "writer", {}))["state"] == "READY"


# ------------------------------------------------------------------------- trusted networks


async def test_a_trusted_network_needs_no_token_and_its_neighbour_does() -> None:
    networks = parse_networks("10.0.0.0/8,127.0.0.1")
    async with guarded(bind=BEYOND, trusted_networks=networks) as rest:
        assert (await rest.ask("/writer/stop", address=LOOPBACK)).json()["status"] == "ok"
        assert "--trusted-networks" in await rest.refuses("/writer/stop")


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "Via"]
)
async def test_no_header_makes_a_client_trusted(header: str) -> None:
    async with guarded(bind=BEYOND, trusted_networks=parse_networks("127.0.0.1")) as rest:
        for claim in ("127.0.0.1", "for=127.0.0.1", "127.0.0.1, 10.0.0.1"):
            assert STRANGER in await rest.refuses("/writer/stop", headers={header: claim})


async def test_the_published_client_works_from_a_trusted_network_and_from_no_other(tmp_path: Path) -> None:
    request = {"output_file": str(tmp_path / "a.h5"), "n_images": 5}
    async with guarded(bind=BEYOND, trusted_networks=parse_networks("127.0.0.1")) as rest:
        client = StdDaqClient(rest.url)
        assert (await rest.run(client.start_writer_async, request))["state"] == "WRITING"
        assert (await rest.run(client.stop_writer))["state"] == "READY"
    async with guarded(bind=BEYOND, trusted_networks=parse_networks("127.0.0.2")) as rest:
        client = StdDaqClient(rest.url)
        assert (await rest.run(client.get_status))["state"] == "READY"
        with pytest.raises(StdDaqAdminException, match="--trusted-networks"):
            await rest.run(client.stop_writer)


# ----------------------------------------------------------------------------- web browsers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "a@b:c",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1/evil.example",
        "127.0.0.1?evil.example",
        "127.0.0.1#evil.example",
        "127.0.0.1:evil",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:80:80",
        "localhost:",
        "localhost evil.example",
        "localhost,evil.example",
        "localhost..",
        "[localhost]",
        "[::1]evil",
        "[::1%lo]",
        "::1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "",
    ],
)
async def test_a_name_that_is_not_ours_is_refused_for_reads_too(host: str) -> None:
    """As a browser asks whose page's own name was pointed at this service."""
    async with guarded(host_names=frozenset({"daq-7"})) as rest:
        assert "--allowed-hosts" in await rest.refuses("/writer/status", method="GET", headers={"Host": host})
        assert "--allowed-hosts" in await rest.refuses("/writer/stop", headers={"Host": host})
        assert (await rest.ask("/docs", "GET", headers={"Host": host})).status_code == 403


async def test_addresses_localhost_and_the_names_given_are_ours() -> None:
    async with guarded(host_names=frozenset({"daq-7"})) as rest:
        for host in ("127.0.0.1:5000", "localhost", "LOCALHOST:1", "[::1]:80", "10.1.2.3", "DAQ-7.:5000"):
            answer = await rest.ask("/writer/status", "GET", headers={"Host": host})
            assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1", "file://", "http://localhost:5000"]
)
async def test_a_page_of_another_origin_changes_nothing_even_from_a_trusted_machine(origin: str) -> None:
    async with guarded(trusted_networks=parse_networks("127.0.0.0/8")) as rest:
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        message = await rest.refuses(headers=headers, data=b'{"output_file": "/tmp/a.h5", "n_images": 1}')
        assert "web page" in message


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "something-new", ""])
async def test_what_a_browser_says_a_page_of_another_site_asked_for_changes_nothing(site: str) -> None:
    """Without an Origin too, and from a trusted machine with the token, as a form of that page would."""
    async with guarded(bind=BEYOND, token=TOKEN, trusted_networks=parse_networks("127.0.0.0/8")) as rest:
        headers = {"Sec-Fetch-Site": site, "Content-Type": "text/plain"} | bearer(TOKEN)
        message = await rest.refuses(headers=headers, data=b'{"output_file": "/tmp/a.h5", "n_images": 1}')
        assert "web page" in message
        assert (await rest.ask("/writer/status", "GET", headers=headers)).json()["status"] == "ok"


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_our_own_page_and_what_a_person_typed_may_change_things(site: str) -> None:
    async with guarded() as rest:
        answer = await rest.ask("/writer/stop", headers={"Sec-Fetch-Site": site})
        assert answer.json()["status"] == "ok"


@pytest.mark.parametrize("address", [LOOPBACK, STRANGER])
async def test_a_websocket_is_refused_before_any_route_sees_it(address: str) -> None:
    """Whoever asks: a route that is added one day is not open by mistake."""
    seen: list[Any] = []
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    check = AccessCheck(app, Access(trusted_networks=parse_networks("127.0.0.0/8")))
    scope = {"type": "websocket", "path": "/live", "headers": [], "client": (address, 4711)}
    await check(scope, receive, send)
    assert [message["type"] for message in said] == ["websocket.close"]
    assert said[0]["code"] == 1008
    with pytest.raises(ValueError, match="nobody has said who may do what by 'webtransport'"):
        await check(scope | {"type": "webtransport"}, receive, send)
    assert seen == []


async def test_an_upgrade_to_a_websocket_over_http_changes_nothing() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        for method in ("GET", "POST"):
            with rest.raw() as client:
                head = f"{method} /writer/stop HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                key = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
                await rest.run(client.sendall, (head + key).encode())
                answer = await rest.run(client.recv, 12)
                assert answer == b"HTTP/1.1 200"  # 101 would be a WebSocket
                await rest.run(hear, client, b'"error"')


async def test_our_own_page_may_change_things_and_no_page_is_told_that_it_may() -> None:
    async with guarded() as rest:
        answer = await rest.ask("/writer/stop", headers={"Origin": rest.url})
        assert answer.json()["status"] == "ok"
        for method in ("GET", "OPTIONS", "POST"):
            asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
            answer = await rest.ask("/writer/stop", method, headers=asked)
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]


# ----------------------------------------------------------------- slow and greedy clients


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test need not wait long for."""
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    monkeypatch.setattr(connection, "READ_S", 0.5)


def hear(client: socket.socket, wanted: bytes) -> None:
    """Read until something was said."""
    heard = b""
    while wanted not in heard:
        part = client.recv(65536)
        assert part, f"the server hung up after {heard!r}"
        heard += part


def trickle(client: socket.socket, text: bytes) -> bool:
    """Send a byte at a time for twenty seconds at most; return whether the server hung up."""
    client.settimeout(0.05)
    until = time.monotonic() + 20
    for byte in itertools.cycle(text):
        if time.monotonic() > until:
            return False
        try:
            client.sendall(bytes([byte]))
            if client.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return True


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first", [b"", b"GET /writer/status HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_a_client_that_trickles_its_request_is_dropped(first: bytes) -> None:
    """At once, or after a first request in order."""
    async with guarded() as rest:
        with rest.raw() as client:
            await rest.run(client.sendall, first)
            if first:
                assert b"200 OK" in await rest.run(client.recv, 4096)
            assert await rest.run(trickle, client, b"GET / HTTP/1.1\r\nX: y")


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_says_nothing_is_dropped() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            assert await rest.run(client.recv, 1) == b""


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_nobody_asked_for_does_not_hold_a_connection() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            head = b"POST /writer/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
            await rest.run(client.sendall, head)
            await rest.run(hear, client, b"Writing stopped.")
            assert await rest.run(trickle, client, b"x")


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_read_its_answers_is_dropped() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with contextlib.suppress(OSError):
                await rest.run(client.sendall, ask * 300)
            async with asyncio.timeout(20):
                while rest.server.n_connections:  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.05)


async def test_an_endless_chunked_body_is_refused_when_it_is_too_large() -> None:
    def endless() -> Any:
        for _ in range(200):
            yield b"x" * 100_000

    async with guarded() as rest:
        try:
            message = await rest.refuses("/daq/config", data=endless())
        except requests.ConnectionError:  # it hung up on us before we had sent it all
            return
        assert "larger than" in message


async def test_a_stranger_is_refused_before_its_body_is_read() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        with rest.raw() as client:
            head = b"POST /daq/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
            await rest.run(client.sendall, head)
            await rest.run(hear, client, b"token")
