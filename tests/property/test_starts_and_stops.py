"""Whatever is asked in whatever order by whichever face: a Stop ends every start that came before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from daq_core.errors import DaqError
from daq_core.state.status import DaqState, WriteRequest
from ioc.access.control import AccessControl
from ioc.commands.client import Client
from ioc.commands.commands import Commands
from ioc.program.ports import LOOPBACK
from rest_bridge.app import make_app
from rest_bridge.server import RestServer
from tests.daq.loopback import Bench, eventually, jungfrau, loopback_daq
from tests.daq.slow_forks import SlowForks

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOMEBODY = Client("somebody", "here", LOOPBACK)
END_S = 60.0
PAUSES_S = (None, 0.0, 0.0, 0.001, 0.005, 0.02, 0.08)  # None: in the same turn of the event loop

STEPS = st.tuples(
    st.sampled_from(("start", "start", "stop", "stop", "configure", "reconfigure")),
    st.sampled_from(("Daq", "CA", "areaDetector", "REST")),
    st.sampled_from(PAUSES_S),
)
INTERLEAVINGS = st.lists(STEPS, min_size=2, max_size=7).filter(lambda steps: "start" in {s[0] for s in steps})
FORK_DELAYS_S = st.sampled_from((0.0, 0.0, 0.02, 0.1))


@dataclass
class Faces:
    """A real Daq with its faces; `starts` are the paths asked for, as far as they are known."""

    bench: Bench
    forks: SlowForks
    commands: Commands
    rest_port: int
    n_started: int = 0
    asked: list[str] = field(default_factory=list)
    received: Counter[str] = field(default_factory=Counter)
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Be short: hypothesis prints all arguments with a failure."""

    @property
    def folder(self) -> Path:
        return self.bench.folder

    async def start(self, face: str) -> None:
        """Ask for a run; returns when the face has answered."""
        self.n_started += 1
        path = str(self.folder / f"run-{self.n_started}.h5")
        self.asked.append(path)
        match face:
            case "Daq":
                await self.bench.daq.start(WriteRequest.checked(path, 1000))
            case "CA":
                await self.commands.put_output_file(path, SOMEBODY)
                await self.commands.write_async("Start", SOMEBODY)
            case "areaDetector":
                area = self.commands.area
                await area.put_file_name(f"run-{self.n_started}", SOMEBODY)
                await area.capture("Capture", SOMEBODY)  # returns when the run has ended
            case "REST":
                await self.post("/writer/write_async", output_file=path, n_images=1000)

    async def stop(self, face: str) -> None:
        match face:
            case "Daq":
                await self.bench.daq.stop()
            case "CA":
                await self.commands.stop("Stop", SOMEBODY)
            case "areaDetector":
                await self.commands.area.capture("Done", SOMEBODY)
            case "REST":
                await self.post("/writer/stop")

    async def configure(self, face: str) -> None:
        """Change something that needs no other receiver."""
        await self.change(face, "stats_collection_period", 1.0 + self.n_started % 2)

    async def reconfigure(self, face: str) -> None:
        """Change something that needs another receiver: UNKNOWN for a while."""
        await self.change(face, "image_timeout_s", 0.5 + self.n_started % 2)

    async def change(self, face: str, key: str, value: object) -> None:
        if face == "REST":
            await self.post("/daq/config", **{key: value})
        else:
            await self.bench.daq.configure({key: value})

    async def post(self, path: str, **body: object) -> None:
        """Ask over a connection that is there already: what is sent first comes first."""
        text = json.dumps(body).encode()
        reader, writer = self.connections.pop()
        try:
            writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode())
            writer.write(b"Content-Length: %d\r\n\r\n" % len(text) + text)
            answer = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
            if answer["status"] != "ok":
                raise DaqError(answer["message"])
        finally:
            writer.close()


class CountReceived:
    """ASGI middleware: counts requests as they are received."""

    def __init__(self, app: ASGIApp, count: Counter[str]) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count["REST"] += 1
        await self.app(scope, receive, send)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faces(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Faces]:
    forks = SlowForks()
    async with loopback_daq(jungfrau(rows=64), tmp_path_factory.mktemp("runs"), forks) as bench:
        received: Counter[str] = Counter()
        app = make_app(bench.daq)
        app.add_middleware(CountReceived, count=received)
        server = RestServer(app, LOOPBACK, 0)
        serving = asyncio.create_task(server.run())
        await server.started.wait()
        commands = Commands(bench.daq, lambda: None, AccessControl(), lambda text: None)
        await commands.area.put_file_path(str(bench.folder), SOMEBODY)
        await commands.area.put_file_template("%s%s.h5", SOMEBODY)
        await commands.area.put("NumCapture", "num_capture", 1000, SOMEBODY)
        yield Faces(bench, forks, commands, server.port, received=received)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def take(faces: Faces, steps: list[tuple[str, str, float | None]], delay_s: float) -> None:
    """Take the steps, each as a task of its own like a client's, and demand what a Stop promises."""
    note(f"writers after {delay_s} s: {steps}")  # hypothesis shows no arguments of a test with fixtures
    daq = faces.bench.daq
    faces.forks.delay_s, faces.asked = delay_s, []
    total = daq.snapshot.log_total
    tasks: list[asyncio.Task[None]] = []
    n_starts = 0

    async def carry_out(act: Callable[[str], Awaitable[None]], face: str) -> None:
        with contextlib.suppress(DaqError):
            await act(face)
            return

    async def stop(n_before: int, face: str) -> None:
        await faces.stop(face)
        if n_starts == n_before:  # nobody has asked for a run since
            assert daq.snapshot.status.state is not DaqState.WRITING
            assert not daq.is_taken

    faces.connections = [
        await asyncio.open_connection(LOOPBACK, faces.rest_port) for _, face, _ in steps if face == "REST"
    ]
    faces.received.clear()
    n_sent = 0
    for kind, face, pause_s in steps:
        if face != "REST":  # what was sent by REST is received before this
            await eventually(lambda: faces.received["REST"] == n_sent, END_S)  # noqa: B023 - at once
        n_sent += face == "REST"
        n_starts += kind == "start"
        act = partial(stop, n_starts) if kind == "stop" else getattr(faces, kind)
        tasks.append(asyncio.create_task(carry_out(act, face)))
        if pause_s is not None:
            await asyncio.sleep(pause_s)
    last = [kind for kind, *_ in steps if kind in ("start", "stop")][-1]
    await eventually(lambda: faces.received["REST"] == n_sent, END_S)
    if last == "start":
        tasks.append(asyncio.create_task(carry_out(partial(stop, n_starts), "Daq")))
    done, pending = await asyncio.wait(tasks, timeout=END_S)
    assert not pending
    for task in done:
        task.result()
    await daq.reconfigured()
    await faces.bench.until(DaqState.READY, timeout_s=END_S)
    assert not daq.is_taken
    ended = [
        run.request.output_file for run in daq.snapshot.log[: daq.snapshot.log_total - total] if run.request
    ]
    assert len(set(ended)) == len(ended)
    assert set(ended) <= set(faces.asked)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(steps=INTERLEAVINGS, delay_s=FORK_DELAYS_S)
async def test_after_a_stop_there_is_no_run_that_was_asked_for_before_it(
    faces: Faces, steps: list[tuple[str, str, float | None]], delay_s: float
) -> None:
    await take(faces, steps, delay_s)


@pytest.mark.night
@pytest.mark.timeout(1200)
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(steps=INTERLEAVINGS, delay_s=FORK_DELAYS_S)
async def test_after_a_stop_there_is_no_run_that_was_asked_for_before_it_by_night(
    faces: Faces, steps: list[tuple[str, str, float | None]], delay_s: float
) -> None:
    await take(faces, steps, delay_s)


async def test_the_run_after_all_of_that_is_perfect(faces: Faces) -> None:
    faces.forks.delay_s = 0.0
    await faces.bench.stop()
    await faces.bench.perfect_run(10)
