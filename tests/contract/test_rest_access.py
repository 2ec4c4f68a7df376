"""Who may change things by REST: people who try to break in, by real connections of loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from std_daq_client import StdDaqClient
from std_daq_client.client import StdDaqAdminException

from daq_core.linux.network import parse_networks
from ioc.program.client.service_client import ServiceClient, ServiceRefused
from ioc.program.ports import LOOPBACK
from rest_bridge.access import Access, AccessCheck
from tests.daq.guarded_rest import BEYOND, STRANGER, TOKEN, guarded, hear

COMMANDS = ("/writer/write_async", "/writer/write_sync", "/writer/stop", "/daq/config")
READS = ("/writer/status", "/daq/config", "/daq/stats", "/daq/logs/3", "/daq/deployment", "/docs")


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
