"""Runs from start to stop through the one door: what is accepted, shown, refused and counted."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import AsyncIterator

import h5py
import pytest
import pytest_asyncio

from daq_core.errors import Busy, DaqError, InvalidRequest
from daq_core.state.status import AcquisitionState, DaqState, Snapshot, WriteRequest
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAITING, ACQUIRING, WRITING, FLUSHING, FINISHED, FAILED = AcquisitionState


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(rows=64), tmp_path_factory.mktemp("runs")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq, READY, with nothing shown yet; no writer may outlive its run."""
    await module_bench.stop()
    module_bench.snapshots.clear()
    yield module_bench
    await module_bench.stop()
    await eventually(lambda: not module_bench.writers)


async def test_every_state_of_a_run_is_shown_in_its_order(bench: Bench) -> None:
    """Between the first image on disk and the last one in memory it is writing; so the last ones wait."""
    await bench.start(5)
    first, *others = bench.next_ids(5)
    await bench.send([first])
    await bench.when(lambda s: s.status.acquisition.state is WRITING)
    await bench.send(others)
    await bench.end()
    assert bench.states()[-6:] == [
        (DaqState.WRITING, bench.states()[0][1]),  # accepted: still the acquisition before
        (DaqState.WRITING, WAITING),
        (DaqState.WRITING, ACQUIRING),
        (DaqState.WRITING, WRITING),
        (DaqState.WRITING, FLUSHING),
        (DaqState.READY, FINISHED),
    ]


async def test_a_run_is_in_the_log_when_its_end_is_shown(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A script that waits for READY reads the log next: the line is there, and so is the acquisition."""
    seen: list[tuple[bool, bool]] = []

    def look(snapshot: Snapshot) -> None:
        ended = snapshot.status.acquisition
        if snapshot.status.state is DaqState.READY and not seen:
            lines = [record.getMessage() for record in caplog.records]
            seen.append((f"{path}: Completed., 2 images" in lines, snapshot.log[0] == ended))

    caplog.set_level(logging.INFO)
    path = await bench.start(2)
    unsubscribe = bench.daq.subscribe(look)
    await bench.send(bench.next_ids(2))
    await bench.end()
    unsubscribe()
    assert seen == [(True, True)]


async def test_a_run_of_one_image_goes_through_all_states_but_writing(bench: Bench) -> None:
    """Its only image is acquired before any is on disk, and then there is none to come."""
    await bench.perfect_run(1)
    assert [acquisition for _, acquisition in bench.states()][1:] == [WAITING, ACQUIRING, FLUSHING, FINISHED]


async def test_two_runs_with_the_same_frame_numbers_are_both_complete(bench: Bench) -> None:
    ids = bench.next_ids(10)
    for path in (await bench.start(10), None):
        path = path or await bench.start(10)
        await bench.send(ids)
        assert (await bench.end()).acquisition.message == "Completed."
        assert_holds(path, bench.simulator, ids)


async def test_a_run_with_a_first_and_a_last_id_has_those_images_and_ends_by_itself(bench: Bench) -> None:
    ids = bench.next_ids(20)
    path = bench.folder / "ids.h5"
    request = WriteRequest.checked(str(path), 100, None, ids[4], ids[11])
    await bench.daq.start(request)
    await bench.send(ids)
    status = await bench.end()
    assert (status.acquisition.message, status.acquisition.n_write_completed) == ("Completed.", 8)
    assert_holds(path, bench.simulator, ids[4:12])
    assert bench.daq.ids_in_ring is not None
    assert bench.daq.ids_in_ring[1] == ids[-1]


@pytest.mark.parametrize(
    ("start_id", "end_id"), [(-1, None), (2**64 - 1, None), (True, None), (5, 4), (0, "9")]
)
async def test_ids_that_no_image_can_have_are_refused(bench: Bench, start_id: object, end_id: object) -> None:
    with pytest.raises(InvalidRequest, match=r"start_id|end_id"):
        WriteRequest.checked(str(bench.folder / "x.h5"), 1, None, start_id, end_id)


async def test_a_run_started_while_the_detector_is_streaming_has_consecutive_whole_images(
    bench: Bench,
) -> None:
    enough = threading.Event()
    first_id = bench.next_ids(10_000)[0]
    streaming = asyncio.create_task(
        asyncio.to_thread(bench.simulator.send, 0, 300, first_id=first_id, stop=enough)
    )
    try:
        for _ in range(3):
            await asyncio.sleep(0.1)
            path = await bench.start(15)
            assert (await bench.end()).acquisition.message == "Completed."
            with h5py.File(path) as file:
                start = int(file["entry/data/image_id"][0])
            assert_holds(path, bench.simulator, range(start, start + 15))
    finally:
        enough.set()
        await streaming


async def test_an_open_ended_run_writes_everything_until_it_is_stopped(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(30)
    await bench.send(ids)
    await bench.until_written(30)
    status = await bench.stop()
    assert status.acquisition.message == "Interrupted."
    assert status.acquisition.n_write_completed == 30
    assert_holds(path, bench.simulator, ids)


@pytest.mark.parametrize("n_images", [0, 5])
async def test_a_run_stopped_before_the_first_image_is_an_interrupted_empty_file(
    bench: Bench, n_images: int
) -> None:
    path = await bench.start(n_images)
    status = await bench.stop()
    assert (status.acquisition.state, status.acquisition.message) == (FINISHED, "Interrupted.")
    assert_holds(path, bench.simulator, [])


@pytest.mark.parametrize("state", [WAITING, ACQUIRING, WRITING, FLUSHING])
async def test_stop_is_ready_soon_from_every_state_of_a_run(bench: Bench, state: AcquisitionState) -> None:
    """The stop is sent by a listener at the very moment the state is shown."""
    stops: list[asyncio.Task[object]] = []

    def stop_there(snapshot: object) -> None:
        if bench.status.acquisition.state is state and not stops:
            stops.append(asyncio.get_running_loop().create_task(bench.stop()))

    path, ids = bench.new_path(), bench.next_ids(10)
    unsubscribe = bench.daq.subscribe(stop_there)
    try:
        await bench.start(10, path)
        await bench.send(ids)
        await bench.end()
    finally:
        unsubscribe()
    assert len(stops) == 1
    await stops[0]
    written = bench.status.acquisition.n_write_completed
    assert bench.status.acquisition.message == ("Completed." if written == 10 else "Interrupted.")
    assert_holds(path, bench.simulator, ids[:written])
    await bench.perfect_run(5)


async def test_stop_while_the_file_is_being_opened_ends_the_run_at_once(bench: Bench) -> None:
    starting = asyncio.create_task(bench.start(10))
    await bench.when(lambda s: s.status.pending is not None)
    status = await bench.stop()
    assert status.acquisition.message == "Interrupted."
    assert_holds(await starting, bench.simulator, [])


async def test_stop_of_an_idle_daq_changes_nothing(bench: Bench) -> None:
    before = bench.status
    assert await bench.stop() is before
    assert all(snapshot.status is before for snapshot in bench.snapshots)  # there are rates once a second


async def test_a_second_start_is_refused_and_changes_nothing(bench: Bench) -> None:
    path, ids = await bench.start(10), bench.next_ids(10)
    await bench.send(ids[:5])
    await bench.until_written(5)
    before, other = bench.status, bench.new_path()
    for target in (other, path):
        with pytest.raises(Busy, match=str(path)):
            await bench.start(3, target)
    assert bench.status is before
    assert not other.exists()
    await bench.send(ids[5:])
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)


async def test_of_twenty_starts_at_once_exactly_one_wins(bench: Bench) -> None:
    total = bench.daq.snapshot.log_total
    paths = [bench.new_path() for _ in range(20)]
    outcomes = await asyncio.gather(*(bench.start(3, path) for path in paths), return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 19
    winner = [path for path, outcome in zip(paths, outcomes, strict=True) if path == outcome]
    assert [path for path in paths if path.exists()] == winner
    await bench.send(ids := bench.next_ids(3))
    await bench.end()
    assert_holds(winner[0], bench.simulator, ids)
    assert bench.daq.snapshot.log_total == total + 1


async def test_of_starts_into_the_same_file_exactly_one_wins(bench: Bench) -> None:
    path = bench.new_path()
    outcomes = await asyncio.gather(*(bench.start(3, path) for _ in range(10)), return_exceptions=True)
    assert outcomes.count(path) == 1
    assert sum(isinstance(outcome, Busy | InvalidRequest) for outcome in outcomes) == 9
    await bench.send(ids := bench.next_ids(3))
    await bench.end()
    assert_holds(path, bench.simulator, ids)


async def test_cancelling_who_waits_does_not_cancel_the_run(bench: Bench) -> None:
    path, ids = bench.new_path(), bench.next_ids(6)
    starting = asyncio.create_task(bench.start(6, path))
    await asyncio.sleep(0)
    starting.cancel()
    await bench.until(WAITING)
    waiting = asyncio.create_task(bench.daq.wait())
    await bench.send(ids[:3])
    await bench.until_written(3)
    waiting.cancel()
    assert bench.status.state is DaqState.WRITING
    await bench.send(ids[3:])
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)


async def test_a_stop_that_nobody_waits_for_still_ends_the_run(bench: Bench) -> None:
    await bench.start(6)
    stopping = asyncio.create_task(bench.daq.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await bench.until(DaqState.READY)
    assert bench.status.acquisition.message == "Interrupted."


async def test_fifty_short_runs_one_after_the_other_leave_no_descriptor_open(bench: Bench) -> None:
    await bench.perfect_run(2)
    before = len(os.listdir("/proc/self/fd"))
    total = bench.daq.snapshot.log_total
    for _ in range(50):
        await bench.perfect_run(2)
    assert bench.daq.snapshot.log_total == total + 50
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_what_is_said_to_be_written_is_what_a_reader_sees(bench: Bench) -> None:
    """Never more than a SWMR reader finds, at every snapshot of a run."""
    path, ids = await bench.start(60), bench.next_ids(60)
    with h5py.File(path, swmr=True) as file:
        data = file["entry/data/data"]
        seen: list[tuple[int, int]] = []

        def compare(snapshot: object) -> None:
            said = bench.status.acquisition.n_write_completed
            data.refresh()
            seen.append((said, len(data)))

        unsubscribe = bench.daq.subscribe(compare)
        await bench.send(ids, rate_hz=100)
        await bench.end()
        unsubscribe()
    assert len(seen) > 10
    assert [(said, there) for said, there in seen if said > there] == []
    assert seen[-1] == (60, 60)


async def test_snapshots_never_go_back_in_time_or_count(bench: Bench) -> None:
    await bench.perfect_run(20)
    shown = [s for s in bench.snapshots if s.status.acquisition.running]
    for before, after in itertools.pairwise(bench.snapshots):
        assert before.time <= after.time
        assert before.counters.packets_received <= after.counters.packets_received
    for former, latter in itertools.pairwise(s.status.acquisition for s in shown):
        assert former.n_write_requested <= latter.n_write_requested
        assert former.n_write_completed <= latter.n_write_completed <= latter.n_write_requested


async def test_a_folder_that_is_missing_is_refused_and_changes_nothing(bench: Bench) -> None:
    before = bench.status
    with pytest.raises(DaqError, match=r"does not exist\. Please create it first\."):
        await bench.daq.start(WriteRequest.checked(str(bench.folder / "missing" / "a.h5"), 3))
    assert bench.status is before
    assert all(snapshot.status is before for snapshot in bench.snapshots)  # there are rates once a second
