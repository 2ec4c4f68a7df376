"""Processes that are killed or stopped: what is shown, what is saved, and that the next run is perfect."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import h5py
import pytest
import pytest_asyncio

from daq_core.errors import Busy, RunFailed
from daq_core.state.status import AcquisitionState, DaqState
from tests.daq.filled_sockets import send_to_sockets
from tests.daq.loopback import (
    MARK,
    Bench,
    assert_holds,
    eventually,
    jungfrau,
    kill_all,
    loopback_daq,
    marked_processes,
    no_processes_left,
    standing_still,
)
from tests.machine.judges import absent

pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE_HZ = 100
RECEIVER_BACK_S = 30  # a machine that is busy takes seconds to start one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(rows=64), tmp_path_factory.mktemp("faults")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq, READY, with nothing shown yet; after each fault the next run must be perfect."""
    module_bench.snapshots.clear()
    yield module_bench
    await module_bench.until(DaqState.READY, timeout_s=RECEIVER_BACK_S)
    await module_bench.perfect_run()
    await eventually(lambda: not module_bench.writers)


async def streamed_run(bench: Bench, n_images: int = 200) -> tuple[Path, list[int], asyncio.Task[None]]:
    """Start a run and let its images come for two seconds."""
    path, ids = await bench.start(n_images), bench.next_ids(n_images)
    return path, ids, asyncio.create_task(bench.send(ids, RATE_HZ))


def assert_failed(bench: Bench, reason: str) -> None:
    """Demand that the last run was shown as FAILED, for this reason, and is in the log once."""
    acquisition = bench.status.acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert acquisition.message.startswith("ERROR: ")
    assert reason in acquisition.message
    assert [a.request for a in bench.daq.snapshot.log].count(acquisition.request) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_a_run_whose_writer_is_killed_keeps_the_images_it_had_written(bench: Bench, seed: int) -> None:
    path, ids, sending = await streamed_run(bench)
    await asyncio.sleep(random.Random(seed).uniform(0.0, 1.5))
    os.kill(bench.writer, signal.SIGKILL)
    await bench.until(AcquisitionState.FAILED)
    await bench.stop()
    assert_failed(bench, "writer lost")
    assert (DaqState.UNKNOWN, AcquisitionState.FAILED) in bench.states()
    with h5py.File(path) as file:
        n_readable = len(file["entry/data/data"])
        assert file["entry/run/state"].asstr()[()] == "FAILED"
    assert n_readable >= bench.status.acquisition.n_write_completed
    assert_holds(path, bench.simulator, ids[:n_readable])
    await sending


async def test_after_a_killed_writer_the_daq_is_ready_by_itself(bench: Bench) -> None:
    _, _, sending = await streamed_run(bench)
    await bench.until_written(5)
    os.kill(bench.writer, signal.SIGKILL)
    await bench.until(DaqState.UNKNOWN)
    await bench.until(DaqState.READY)
    assert_failed(bench, "writer lost")
    await sending


async def test_a_start_that_follows_a_stop_of_a_lost_run_is_not_disturbed_by_its_repair(bench: Bench) -> None:
    """While the streaming goes on, so that a run that lost its ring would show."""
    for _ in range(5):
        _, _, sending = await streamed_run(bench, 60)
        await bench.until_written(3)
        os.kill(bench.writer, signal.SIGKILL)
        await bench.until(AcquisitionState.FAILED)
        await bench.stop()
        path = await bench.start(3)
        assert (await bench.end()).acquisition.message == "Completed."
        with h5py.File(path) as file:
            start = int(file["entry/data/image_id"][0])
        assert_holds(path, bench.simulator, range(start, start + 3))
        await sending


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_writer_that_ends_or_hangs_before_any_image_fails_the_run(
    bench: Bench, signal_number: signal.Signals
) -> None:
    path = await bench.start(5)
    os.kill(bench.writer, signal_number)
    await bench.stop()
    assert_failed(bench, "writer lost")
    assert_holds(path, bench.simulator, [])


async def test_a_writer_that_hangs_is_killed_by_stop(bench: Bench) -> None:
    path, ids, sending = await streamed_run(bench)
    await bench.until_written(10)
    os.kill(bench.writer, signal.SIGSTOP)
    await asyncio.sleep(0.1)
    await bench.stop()
    assert_failed(bench, "did not end when it was stopped")
    with h5py.File(path) as file:
        n_readable = len(file["entry/data/data"])
    assert n_readable >= 10
    assert_holds(path, bench.simulator, ids[:n_readable])
    await sending


def start_and_freeze(bench: Bench) -> asyncio.Task[Path]:
    """Start a run whose writer stands still from the moment the request is accepted."""
    frozen: list[int] = []

    def freeze(snapshot: object) -> None:
        if bench.status.pending is not None and not frozen:
            frozen.append(bench.writer)
            os.kill(bench.writer, signal.SIGSTOP)

    unsubscribe = bench.daq.subscribe(freeze)
    starting = asyncio.create_task(bench.start(5))
    starting.add_done_callback(lambda _: unsubscribe())
    return starting


async def test_stop_ends_a_run_whose_file_is_never_opened(bench: Bench) -> None:
    starting = start_and_freeze(bench)
    await bench.when(lambda s: s.status.pending is not None)
    await bench.stop()
    assert_failed(bench, "did not end when it was stopped")
    with pytest.raises(RunFailed, match="writer lost"):
        await starting


async def test_a_receiver_lost_while_the_file_is_being_opened_fails_the_start(bench: Bench) -> None:
    starting = start_and_freeze(bench)
    await bench.when(lambda s: s.status.pending is not None)
    writer = bench.writer
    os.kill(bench.receiver, signal.SIGKILL)
    with pytest.raises(RunFailed, match="receiver lost"):
        await starting
    os.kill(writer, signal.SIGCONT)
    await bench.until(DaqState.READY, timeout_s=RECEIVER_BACK_S)
    assert_failed(bench, "receiver lost")
    request = bench.status.acquisition.request
    assert request is not None
    assert_holds(Path(request.output_file), bench.simulator, [])


async def test_a_killed_receiver_fails_the_run_and_comes_back_by_itself(bench: Bench) -> None:
    path, ids, sending = await streamed_run(bench)
    await bench.until_written(10)
    os.kill(bench.receiver, signal.SIGKILL)
    lost = await bench.until(DaqState.UNKNOWN)
    assert not lost.health.receiver_up
    with pytest.raises(Busy, match="receiver lost: process"):
        await bench.start(3)
    await sending
    await bench.until(DaqState.READY, timeout_s=RECEIVER_BACK_S)
    assert_failed(bench, "receiver lost: process")
    n_written = bench.status.acquisition.n_write_completed
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
    assert n_written >= 10
    assert_holds(path, bench.simulator, ids[:n_written])


async def test_a_receiver_killed_while_idle_comes_back_and_fails_nothing(bench: Bench) -> None:
    before, restarts = bench.status.acquisition, bench.daq.snapshot.health.restarts
    os.kill(bench.receiver, signal.SIGKILL)
    await bench.until(DaqState.UNKNOWN)
    ready = await bench.until(DaqState.READY, timeout_s=RECEIVER_BACK_S)
    assert ready.status.acquisition == before
    assert ready.health.restarts == restarts + 1


async def test_a_receiver_that_stood_still_for_two_seconds_loses_nothing(bench: Bench) -> None:
    """Packets wait in the socket's buffer, as far as the kernel grants one of that size."""
    n_images = 60
    needed = n_images * bench.simulator.layout.n_units * 2 * 8300  # bytes, as the kernel counts them
    if bench.counters().socket_buffer_bytes * 2 < needed:
        absent("sockets", f"the kernel grants less than {needed} bytes of receive buffer")
    path, ids = await bench.start(n_images), bench.next_ids(n_images)
    with standing_still([bench.receiver]):
        await send_to_sockets(bench, ids, RATE_HZ)
        await asyncio.sleep(1.4)
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)


async def test_stop_is_ready_soon_when_the_receiver_stands_still(bench: Bench) -> None:
    await bench.start(5)
    os.kill(bench.receiver, signal.SIGSTOP)
    try:
        await bench.stop()
    finally:
        os.kill(bench.receiver, signal.SIGCONT)
    assert bench.status.acquisition.message == "Interrupted."


async def test_a_killed_fork_server_is_replaced_by_the_next_start(bench: Bench) -> None:
    """At once, and for many starts at the same moment; a run that is going on does not notice."""
    ids = bench.next_ids(4)
    path = await bench.start(4)
    os.kill(bench.fork_server, signal.SIGKILL)
    await bench.send(ids)
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)
    outcomes = await asyncio.gather(*(bench.start(1) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, Path) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 4
    await bench.stop()


async def test_when_the_service_is_killed_its_processes_end_and_the_file_is_closed(bench: Bench) -> None:
    """The orphans write what they have, say in the file what happened, and leave."""
    mark, path = f"{os.getpid()}-orphans", bench.new_path()
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_ALONE, str(path), jungfrau(rows=64).as_json()),
        env=os.environ | {MARK: mark},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert service.stdout is not None
        assert await asyncio.wait_for(service.stdout.readline(), 60) == b"10 written\n"
        assert len(marked_processes(mark)) == 4
        service.kill()
        await service.wait()
        await no_processes_left(mark)
    finally:
        kill_all(mark)
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        assert "service ended" in file["entry/run/message"].asstr()[()]
        assert file["entry/data/image_id"][:].tolist() == list(range(1, 11))


RUN_ALONE = """
import asyncio, json, sys
from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from daq_core.state.options import DaqOptions
from daq_core.simulating.simulator import Simulator
from daq_core.state.status import WriteRequest

async def main():
    config = DaqConfig.parse(json.loads(sys.argv[2]))
    async with Daq(config, DaqOptions(udp_host="127.0.0.1")) as daq:
        await daq.start(WriteRequest.checked(sys.argv[1], 100))
        await asyncio.to_thread(Simulator(config).send, 10, 100)
        while daq.snapshot.status.acquisition.n_write_completed < 10:
            await asyncio.sleep(0.01)
        print("10 written", flush=True)
        await daq.wait()

asyncio.run(main())
"""


async def test_a_receiver_lost_at_the_very_end_fails_the_run_in_its_file_too(bench: Bench) -> None:
    """Found by torture: the writer had closed its file as FINISHED when the receiver's end was seen first."""
    path, ids = await bench.start(3), bench.next_ids(3)
    await bench.send(ids[:2])
    await bench.until_written(2)
    bench.simulator.send(1, 0, first_id=ids[2])  # control stands still from here until it knows of the loss
    wait_until_finished(path)
    os.kill(bench.receiver, signal.SIGKILL)
    bench.daq.receiver_lost("killed")
    assert bench.status.acquisition.state is AcquisitionState.FAILED
    await bench.until(DaqState.READY, timeout_s=RECEIVER_BACK_S)
    assert_failed(bench, "receiver lost: killed")
    assert bench.status.acquisition.n_write_completed == 3
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        assert file["entry/run/message"].asstr()[()] == bench.status.acquisition.message
    await bench.perfect_run(3)


def wait_until_finished(path: Path) -> None:
    """Wait until a file is closed in order; blocks, so that nobody here hears of it."""
    while True:
        with contextlib.suppress(OSError), h5py.File(path) as file:
            if file["entry/run/state"].asstr()[()] == "FINISHED":
                return
        time.sleep(0.01)
