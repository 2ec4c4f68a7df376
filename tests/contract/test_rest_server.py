"""The REST face as a part of the service: its port, its end, clients that go away, failures, its pages."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.state.events import ReceiverLost, WriterLost
from ioc.program.ports import LOOPBACK
from rest_bridge.app import make_app
from rest_bridge.server import RestServer
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq
from tests.processes.service import JUNGFRAU_2

N_CLIENTS = 50
ROUTES = {
    "/writer/status": {"get"},
    "/writer/write_async": {"post"},
    "/writer/write_sync": {"post"},
    "/writer/stop": {"post"},
    "/daq/config": {"get", "post"},
    "/daq/stats": {"get"},
    "/daq/logs/{n_logs}": {"get"},
    "/daq/runs/{n_logs}": {"get"},
    "/daq/deployment": {"get"},
}


class Rest:
    """A REST server on a free port in this event loop, in front of a simulated DAQ."""

    def __init__(self, daq: SimulatedDaq) -> None:
        self.daq = daq
        self.server = RestServer(make_app(OnlyDoor(daq)), LOOPBACK, 0)
        self.task = asyncio.create_task(self.server.run())
        self.clients = ThreadPoolExecutor(max_workers=N_CLIENTS)

    async def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask as a client of its own does, in a thread of its own."""
        url = f"http://{LOOPBACK}:{self.server.port}{path}"
        ask = functools.partial(requests.request, method, url, timeout=30, **options)
        return await asyncio.get_running_loop().run_in_executor(self.clients, ask)

    async def get(self, path: str) -> Any:
        return (await self.ask("GET", path)).json()

    async def post(self, path: str, **body: object) -> Any:
        return (await self.ask("POST", path, json=body)).json()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    config = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})
    async with SimulatedDaq(config) as daq:
        rest = Rest(daq)
        await rest.server.started.wait()
        yield rest
        await rest.end()
        rest.clients.shutdown()


async def running(rest: Rest) -> None:
    """Wait until a run's file is open."""
    while not rest.daq.snapshot.status.acquisition.running:  # noqa: ASYNC110 - as a client would
        await asyncio.sleep(0.005)


async def test_a_taken_port_is_refused_before_anything_starts(rest: Rest) -> None:
    with pytest.raises(
        Unavailable, match=f"{LOOPBACK} port {rest.server.port}: Address already in use.*--rest-port"
    ):
        RestServer(make_app(rest.daq), LOOPBACK, rest.server.port)


def test_an_address_that_is_not_ours_is_refused() -> None:
    daq = SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000}))
    with pytest.raises(Unavailable, match=r"192\.0\.2\.1 port 5000: Cannot assign requested address"):
        RestServer(make_app(daq), "192.0.2.1", 5000)


async def test_signals_are_left_to_the_program(rest: Rest) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_the_end_answers_a_hanging_sync_start_and_takes_little_time(
    rest: Rest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = asyncio.create_task(
        rest.post("/writer/write_sync", output_file=str(tmp_path / "a.h5"), n_images=5)
    )
    await running(rest)
    began = time.monotonic()
    await rest.end()
    assert time.monotonic() - began < 2
    assert await hanging == {
        "status": "error",
        "message": "The service is stopping and closes the file of your acquisition.",
    }
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_end_does_not_wait_for_silent_clients(rest: Rest) -> None:
    silent = socket.create_connection((LOOPBACK, rest.server.port))
    silent.sendall(b"POST /writer/write_async HTTP/1.1\r\nHost: localhost\r\nContent-Le")
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await rest.end()
    assert time.monotonic() - began < 2
    silent.close()


async def test_a_client_that_goes_away_during_a_sync_start_does_not_end_the_run(
    rest: Rest, tmp_path: Path
) -> None:
    body = f'{{"output_file": "{tmp_path}/a.h5", "n_images": 2}}'.encode()
    _, writer = await asyncio.open_connection(LOOPBACK, rest.server.port)
    head = f"POST /writer/write_sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await running(rest)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.2)
    assert rest.daq.snapshot.status.acquisition.running
    await rest.daq.receive(2)
    assert rest.daq.snapshot.status.acquisition.message == "Completed."


async def test_a_sync_start_whose_run_fails_is_an_error_with_its_reason(rest: Rest, tmp_path: Path) -> None:
    waiting = asyncio.create_task(
        rest.post("/writer/write_sync", output_file=str(tmp_path / "a.h5"), n_images=5)
    )
    await running(rest)
    rest.daq.apply(WriterLost("killed by signal 9"))
    assert await waiting == {"status": "error", "message": "ERROR: writer lost: killed by signal 9"}
    status = (await rest.get("/writer/status"))["writer"]
    assert (status["state"], status["acquisition"]["state"]) == ("UNKNOWN", "FAILED")
    assert status["acquisition"]["info"]["output_file"] == str(tmp_path / "a.h5")
    assert (await rest.get("/daq/logs/5"))["logs"] == []


async def test_a_file_that_cannot_be_created_is_an_error_with_its_reason(rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"")
    answer = await rest.post("/writer/write_async", output_file=str(tmp_path / "a.h5"), n_images=5)
    assert answer["status"] == "error"
    assert answer["message"].startswith("ERROR: ")
    assert rest.daq.snapshot.status.acquisition.state == "FAILED"


async def test_nothing_starts_in_unknown_and_stop_resets_it(rest: Rest, tmp_path: Path) -> None:
    request = {"output_file": str(tmp_path / "a.h5"), "n_images": 5}
    await rest.post("/writer/write_async", **request)
    rest.daq.apply(WriterLost("killed"))
    (tmp_path / "a.h5").unlink()
    refused = await rest.post("/writer/write_async", **request)
    assert refused["message"].startswith("Cannot start new acquisition while previous one is running:\n {")
    assert "'state': 'UNKNOWN'" in refused["message"]
    assert (await rest.post("/writer/stop"))["writer"]["state"] == "READY"
    assert (await rest.post("/writer/write_async", **request))["status"] == "ok"


async def test_a_receiver_that_is_down_shows_as_unknown(rest: Rest) -> None:
    rest.daq.apply(ReceiverLost("killed"))
    assert (await rest.get("/writer/status"))["message"] == "Writer is UNKNOWN"


async def test_of_many_starts_at_once_one_wins(rest: Rest, tmp_path: Path) -> None:
    answers = await asyncio.gather(
        *(
            rest.post("/writer/write_async", output_file=str(tmp_path / f"{i}.h5"), n_images=1)
            for i in range(N_CLIENTS)
        )
    )
    (won,) = [answer for answer in answers if answer["status"] == "ok"]
    assert [str(file) for file in _files(tmp_path)] == [won["writer"]["acquisition"]["info"]["output_file"]]


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_command_is_logged_with_its_client_and_result_on_one_line(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rest_bridge.envelope")
    await rest.get("/writer/status")
    await rest.post("/writer/write_async", output_file="a\nFAKE LINE", n_images=1)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "rest_bridge.envelope"]
    assert line.startswith(f"{LOOPBACK}:")
    assert "POST /writer/write_async" in line
    assert "-> error: Invalid output_file" in line
    assert "\n" not in line


async def test_the_openapi_page_lists_every_route_with_its_answers(rest: Rest) -> None:
    api = await rest.get("/openapi.json")
    assert {path: set(methods) for path, methods in api["paths"].items()} == ROUTES
    for methods in api["paths"].values():
        for route in methods.values():
            assert route["description"]
            assert set(route["responses"]) == {"200"}
            schema = route["responses"]["200"]["content"]["application/json"]["schema"]
            assert {"$ref": "#/components/schemas/ErrorReply"} in schema["anyOf"]
    assert set(api["components"]["schemas"]["WriterStatus"]["required"]) == {"state", "acquisition"}
    for path in ("/writer/write_async", "/daq/config"):
        body = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["properties"]
        assert body["example"]


async def test_the_root_leads_to_the_page_for_people(rest: Rest) -> None:
    page = await rest.ask("GET", "/")
    assert page.url.endswith("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_the_page_for_people_needs_nothing_from_the_internet_and_has_every_route(rest: Rest) -> None:
    page = (await rest.ask("GET", "/docs")).text
    assert "//" not in page, "an address elsewhere: empty in a network without the internet"
    for path, methods in ROUTES.items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    assert "<code>output_file</code>" in page


async def test_no_other_web_page_may_read_an_answer(rest: Rest) -> None:
    answer = await rest.ask("GET", "/writer/status", headers={"Origin": "http://elsewhere"})
    assert "access-control-allow-origin" not in answer.headers
