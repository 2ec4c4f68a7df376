"""A start is a claim from its first moment: who comes later is refused at once, and a Stop ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from daq_core.control.claim import STOPPED, Asked
from daq_core.errors import Busy, InvalidRequest, Stopped, Unavailable
from daq_core.state.status import DaqState, DaqStatus, WriteRequest
from ioc.access.control import AccessControl
from ioc.commands.client import Client
from ioc.commands.commands import Commands
from ioc.program.ports import LOOPBACK
from rest_bridge.app import make_app
from rest_bridge.server import RestServer
from tests.daq.loopback import Bench, eventually, jungfrau, loopback_daq, standing_still
from tests.daq.slow_forks import SlowForks

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOMEBODY = Client("somebody", "here", LOOPBACK)


class StartBench:
    """A Daq whose fork server can be slow, and two of its faces."""

    def __init__(self, bench: Bench, forks: SlowForks) -> None:
        self.bench, self.daq, self.forks = bench, bench.daq, forks
        self.commands = Commands(bench.daq, lambda: None, AccessControl(), lambda text: None)

    def request(self) -> WriteRequest:
        return WriteRequest.checked(str(self.bench.new_path()), 3)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    async def held_start(self) -> asyncio.Task[DaqStatus]:
        """Begin a start whose writer is not forked yet."""
        self.forks.hold()
        n = self.forks.n_writers
        starting = asyncio.create_task(self.daq.start(self.request()))
        await eventually(lambda: self.forks.n_writers > n, 30)
        return starting


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartBench]:
    forks = SlowForks()
    async with loopback_daq(jungfrau(rows=64), tmp_path_factory.mktemp("starts"), forks) as bench:
        yield StartBench(bench, forks)


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: StartBench) -> AsyncIterator[StartBench]:
    """READY, with a quick fork server; after a test the next run is perfect."""
    yield module_bench
    module_bench.forks.let_go()
    await module_bench.daq.stop()
    await module_bench.bench.perfect_run(3)


async def assert_stopped(bench: StartBench, starting: asyncio.Task[Any]) -> None:
    with pytest.raises(Stopped, match="Stopped before the file was open"):
        await asyncio.wait_for(starting, 30)
    assert bench.daq.snapshot.status.state is DaqState.READY
    assert not bench.daq.is_taken


async def test_a_stop_ends_a_start_whose_writer_is_not_there_yet_and_answers_after_that(
    bench: StartBench,
) -> None:
    total, before = bench.daq.snapshot.log_total, bench.daq.snapshot.status
    starting = await bench.held_start()
    assert await bench.daq.stop() == before
    assert not bench.daq.is_taken
    await assert_stopped(bench, starting)
    assert bench.daq.snapshot.log_total == total


async def test_a_stop_ends_a_start_while_the_fork_server_stands_still(bench: StartBench) -> None:
    """And the writer that it forks later leaves nothing behind."""
    request = bench.request()
    with standing_still([bench.bench.fork_server]):
        starting = bench.begin(bench.daq.start(request))
        await asyncio.sleep(0)
        await bench.bench.stop()
        await assert_stopped(bench, starting)
    await eventually(lambda: not bench.bench.writers, 30)
    assert not (bench.bench.folder / request.output_file).exists()


async def test_a_stop_in_the_same_moment_as_a_start_ends_it(bench: StartBench) -> None:
    for n_turns in range(12):  # of the event loop, between the two
        starting = bench.begin(bench.daq.start(bench.request()))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        stopping = bench.begin(bench.daq.stop())
        if n_turns == 0:
            await assert_stopped(bench, starting)
        await asyncio.wait({starting, stopping}, timeout=30)
        assert stopping.result().state is DaqState.READY
        assert bench.daq.snapshot.status.state is DaqState.READY
        assert not bench.daq.is_taken


async def test_a_start_that_follows_a_stop_is_not_ended_by_it(bench: StartBench) -> None:
    stopping = bench.begin(bench.daq.stop())
    starting = bench.begin(bench.daq.start(bench.request()))
    await asyncio.gather(stopping, starting)
    assert bench.daq.snapshot.status.state is DaqState.WRITING
    assert stopping.result().state is DaqState.READY


async def test_a_run_begun_as_another_is_stopped_is_not_ended_by_that_stop(bench: StartBench) -> None:
    """At the very moment READY is shown somebody starts the next one; the Stop answers READY all the same."""
    await bench.daq.start(bench.request())
    begun: list[asyncio.Task[Any]] = []

    def start_another(snapshot: object) -> None:
        if bench.daq.snapshot.status.state is DaqState.READY and not begun:
            begun.append(bench.begin(bench.daq.start(bench.request())))

    unsubscribe = bench.daq.subscribe(start_another)
    try:
        assert (await bench.daq.stop()).state is DaqState.READY
    finally:
        unsubscribe()
    status = await asyncio.wait_for(begun[0], 30)
    assert not status.stopping
    assert bench.daq.snapshot.status.state is DaqState.WRITING


async def test_whoever_comes_while_a_start_is_under_way_is_refused_at_once_and_forks_nothing(
    bench: StartBench,
) -> None:
    starting = await bench.held_start()
    n_writers = bench.forks.n_writers
    losers = await asyncio.gather(
        *(bench.daq.start(bench.request()) for _ in range(100)), return_exceptions=True
    )
    assert {type(loser) for loser in losers} == {Busy}
    assert "is being started. Wait until it ends, or stop it." in str(losers[0])
    with pytest.raises(Busy, match="while a run is going on"):
        await bench.daq.configure({"bit_depth": 16})
    with pytest.raises(Busy, match="Stop it before SYSRESET"):
        await bench.commands.restart("Restart", SOMEBODY)
    bench.forks.let_go()
    assert (await starting).state is DaqState.WRITING
    assert bench.forks.n_writers == n_writers


async def test_a_refused_start_gives_the_claim_back(bench: StartBench) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="does not exist"):
            await bench.daq.start(WriteRequest.checked("/nowhere/at/all/a.h5", 1))
        assert not bench.daq.is_taken


async def test_a_start_whose_asker_is_gone_forks_nothing(bench: StartBench) -> None:
    n_writers = bench.forks.n_writers
    with pytest.raises(Stopped, match="nobody waits for the answer any more"):
        await bench.daq.start(bench.request(), Asked(bench.daq.n_stops, lambda: True))
    assert bench.forks.n_writers == n_writers
    assert not bench.daq.is_taken


async def test_a_start_whose_asker_leaves_while_nothing_is_forked_yet_is_given_up(bench: StartBench) -> None:
    is_gone = False
    bench.forks.hold()
    starting = bench.begin(bench.daq.start(bench.request(), Asked(bench.daq.n_stops, lambda: is_gone)))
    await asyncio.sleep(0)
    is_gone = True
    with pytest.raises(Stopped, match="nobody waits"):
        await asyncio.wait_for(starting, 30)
    assert not bench.daq.is_taken


async def test_a_start_that_a_stop_overtook_on_its_way_is_ended(bench: StartBench) -> None:
    asked = Asked(bench.daq.n_stops)
    await bench.daq.stop()
    with pytest.raises(Stopped, match=STOPPED):
        await bench.daq.start(bench.request(), asked)


async def test_a_stop_while_a_capture_looks_at_its_folder_ends_it(bench: StartBench) -> None:
    area = bench.commands.area
    await area.restore_file_path(str(bench.bench.folder), SOMEBODY)
    await area.put_file_name("captured", SOMEBODY)
    capturing = bench.begin(area.capture("Capture", SOMEBODY))
    await asyncio.sleep(0)
    await bench.daq.stop()
    await assert_stopped(bench, capturing)


async def test_a_fork_server_that_is_started_anew_goes_on_when_the_start_is_stopped(
    bench: StartBench,
) -> None:
    """Else the next start would ask one that is half there, and take its silence for a fault."""
    bench.forks.kill()
    starting = bench.begin(bench.daq.start(bench.request()))
    await asyncio.sleep(0)
    await bench.bench.stop()
    await assert_stopped(bench, starting)
    await asyncio.wait_for(bench.daq.start(bench.request()), 60)


async def test_a_rest_client_that_left_before_its_start_was_read_gets_no_run(bench: StartBench) -> None:
    server = RestServer(make_app(bench.daq), LOOPBACK, 0)
    serving = asyncio.create_task(server.run())
    await server.started.wait()
    total, n_writers = bench.daq.snapshot.log_total, bench.forks.n_writers
    try:
        for _ in range(20):
            path = bench.bench.new_path()
            body = b'{"output_file": "%s", "n_images": 5}' % str(path).encode()
            with socket.create_connection(
                (LOOPBACK, server.port)
            ) as client:  # the loop does not turn in here
                client.sendall(b"POST /writer/write_async HTTP/1.1\r\nHost: localhost\r\n")
                client.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await asyncio.sleep(0.01)
        await eventually(lambda: server.n_connections == 0, 30)
        assert bench.daq.snapshot.status.state is DaqState.READY
        assert (bench.daq.snapshot.log_total, bench.forks.n_writers) == (total, n_writers)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_start_still_says_why_it_cannot_be_while_the_fork_server_is_down(bench: StartBench) -> None:
    with (
        standing_still([bench.bench.fork_server]),
        pytest.raises(Unavailable, match="No writer process could be started"),
    ):
        await asyncio.wait_for(bench.daq.start(bench.request()), 30)
    assert not bench.daq.is_taken
