"""A disk that fails at any call of a run: FAILED and why, what was counted is readable, the next run perfect.

The whole DAQ runs; the faults are injected into the system calls of its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h5py
import pytest
import pytest_asyncio

from daq_core.errors import RunFailed
from daq_core.state.status import AcquisitionState, DaqState, DaqStatus, Snapshot
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq
from tests.machine.judges import absent
from tests.processes.strace import Trace, is_stopped, strace_of, why_not

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_IMAGES = 2
ERRORS = {"ENOSPC": "No space left on device", "EIO": "Input/output error", "EDQUOT": "Disk quota exceeded"}
LOST = "writer lost"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder, state = tmp_path_factory.mktemp("disk"), tmp_path_factory.mktemp("state")
    async with loopback_daq(jungfrau(rows=16), folder, state_dir=state) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq; after the faults of a test the next run must be perfect."""
    yield module_bench
    await module_bench.stop()
    await module_bench.perfect_run(100)


@pytest.fixture(scope="module")
def strace() -> None:
    """For tests that need strace."""
    if why := why_not():
        absent("strace", why)


async def start_with(bench: Bench, prepare: Callable[[int], None], path: Path, n_images: int) -> None:
    """Start a run, and do something to its writer when it is about to make the file."""

    def act(snapshot: Snapshot) -> None:
        if snapshot.status.pending is not None:
            unsubscribe()
            prepare(bench.writer)

    unsubscribe = bench.daq.subscribe(act)
    with contextlib.suppress(RunFailed):
        await bench.start(n_images, path)


async def feed(bench: Bench, ids: list[int]) -> None:
    """Send images one by one, each a hand-over of its own, as far as the run comes."""

    n_sent = 0

    def is_done(snapshot: Snapshot) -> bool:
        acquisition = snapshot.status.acquisition
        return acquisition.n_write_completed >= n_sent or not acquisition.running

    while n_sent < len(ids) and bench.status.acquisition.running:
        await bench.send([ids[n_sent]])
        n_sent += 1
        await bench.when(is_done, timeout_s=30)


async def faulty_run(
    bench: Bench, *injections: str, children: bool = False
) -> tuple[Path, list[int], DaqStatus, bool]:
    """Take a short run whose writer meets faults; the last of what is returned is whether it met them."""
    path, ids = bench.new_path(), bench.next_ids(N_IMAGES)
    traces: list[Trace] = []
    with contextlib.ExitStack() as traced:
        await start_with(
            bench,
            lambda writer: traces.append(
                traced.enter_context(strace_of(writer, *injections, children=children))
            ),
            path,
            N_IMAGES,
        )
        await feed(bench, ids)
        status = await bench.end(30)
        await bench.until(DaqState.READY)
    return path, ids, status, traces[0].hit


def assert_failed_well(bench: Bench, path: Path, ids: list[int], status: DaqStatus, reason: str) -> None:
    """Demand FAILED for a reason, one record of it, and a file with all images that were counted."""
    acquisition = status.acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert acquisition.message.startswith("ERROR: ")
    assert reason in acquisition.message
    assert [run.request for run in bench.daq.snapshot.log].count(acquisition.request) == 1
    was_opened = any(
        s.status.acquisition.request == acquisition.request and s.status.acquisition.running
        for s in bench.snapshots
    )
    if not was_opened:
        assert acquisition.n_write_completed == 0
        assert not path.exists() or reason == LOST  # killed while it made the file
        return
    with h5py.File(path) as file:
        n_readable = len(file["entry/data/data"])
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        assert file["entry/run/message"].asstr()[()] == acquisition.message
    assert n_readable >= acquisition.n_write_completed
    assert_holds(path, bench.simulator, ids[:n_readable])


async def every_call(
    bench: Bench, fault: str, *, says: str = "", step: int = 1, children: bool = False
) -> tuple[int, int]:
    """Let the calls of a run fail, one a run, until a run has fewer calls.

    `says` is what the messages must say, where that is not the error's text. Returns how many runs
    failed, and how many were complete although a call failed.
    """
    n_failed = n_complete = 0
    for n in itertools.count(1, step):
        name, error = list(ERRORS.items())[n % len(ERRORS)]
        injection = fault.format(n=n, error=name)
        bench.snapshots.clear()
        path, ids, status, hit = await faulty_run(bench, injection, children=children)
        try:
            if hit and status.acquisition.message != "Completed.":
                assert_failed_well(bench, path, ids, status, says or error)
                n_failed += 1
                continue
            assert status.acquisition.message == "Completed."
            assert_holds(path, bench.simulator, ids)
        except (AssertionError, OSError) as wrong:
            raise AssertionError(f"with {injection}: {wrong}") from wrong
        if not hit:
            return n_failed, n_complete
        n_complete += 1
    raise AssertionError


EACH_WRITE = pytest.mark.parametrize(
    "step", [4, pytest.param(1, marks=pytest.mark.night)], ids=["every fourth", "each"]
)


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@EACH_WRITE
async def test_an_error_of_any_write_fails_the_run_with_its_reason(bench: Bench, step: int) -> None:
    """Full, broken and over quota in turn; at the very last write, too, which comes after "FINISHED"."""
    n_failed, n_complete = await every_call(bench, "pwrite64:error={error}:when={n}", step=step)
    assert n_failed > 60 // step
    assert n_complete == 0


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@EACH_WRITE
async def test_a_writer_killed_at_any_write_loses_no_counted_image(bench: Bench, step: int) -> None:
    n_failed, n_complete = await every_call(bench, "pwrite64:signal=SIGKILL:when={n}", step=step, says=LOST)
    assert n_failed > 60 // step
    assert n_complete == 0


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("call", "step", "least"), [("openat", 1, 3), ("close", 1, 2), ("pread64", 4, 5), ("fstat", 1, 0)]
)
async def test_an_error_of_any_other_call_fails_the_run_or_does_no_harm(
    bench: Bench, call: str, step: int, least: int
) -> None:
    n_failed, _ = await every_call(bench, call + ":error={error}:when={n}", step=step)
    assert n_failed >= least


@pytest_asyncio.fixture(loop_scope="module")
async def two_writers(tmp_path: Path) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(rows=16, number_of_writers=2), tmp_path) as bench:
        yield bench
        await bench.perfect_run(100)


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
async def test_of_two_writers_each_failure_fails_the_run(two_writers: Bench) -> None:
    """The same call of both; then the opens of the lead alone, who looks into their files in the end."""
    for fault, says in (("pwrite64:error={error}:when={n}", ""), ("pwrite64:signal=SIGKILL:when={n}", LOST)):
        n_failed, n_complete = await every_call(two_writers, fault, says=says, step=13, children=True)
        assert n_failed >= 3
        assert n_complete == 0
    for n in range(1, 5):
        two_writers.snapshots.clear()
        path, ids, status, hit = await faulty_run(two_writers, f"openat:error=EIO:when={n}")
        assert hit
        if status.acquisition.message != "Completed.":
            assert status.acquisition.state is AcquisitionState.FAILED
            assert "cannot be read" in status.acquisition.message
            with h5py.File(path) as file:
                assert file["entry/run/state"].asstr()[()] == "FAILED"
        else:
            assert_holds(path, two_writers.simulator, ids)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("first", [1, 40, 60])
async def test_a_disk_that_refuses_everything_from_some_write_on_leaves_what_was_counted(
    bench: Bench, first: int
) -> None:
    bench.snapshots.clear()
    path, ids, status, hit = await faulty_run(bench, f"pwrite64:error=ENOSPC:when={first}+")
    assert hit
    assert_failed_well(bench, path, ids, status, ERRORS["ENOSPC"])


@pytest.mark.usefixtures("strace")
async def test_a_disk_that_is_slow_at_every_write_loses_nothing(bench: Bench) -> None:
    path, ids, status, hit = await faulty_run(bench, "pwrite64:delay_enter=20ms")
    assert hit
    assert status.acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)


@pytest.mark.usefixtures("strace")
async def test_stop_does_not_wait_for_a_write_that_takes_a_minute(bench: Bench) -> None:
    path = bench.new_path()
    with contextlib.ExitStack() as traced:
        await bench.start(0, path)
        await bench.send(ids := bench.next_ids(1))
        await bench.until_written(1)
        traced.enter_context(strace_of(bench.writer, "pwrite64:delay_enter=60s"))
        await bench.send(bench.next_ids(1))
        await bench.stop()
    assert "did not end when it was stopped" in bench.status.acquisition.message
    await eventually(lambda: is_closed(path), 30)  # the killed writer held it a moment longer
    assert_holds(path, bench.simulator, ids)


def is_closed(path: Path) -> bool:
    with contextlib.suppress(OSError), h5py.File(path):
        return True
    return False


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("n_bytes", [1, 4095, 17_000, 32_767])
async def test_a_write_that_the_disk_takes_only_partly_is_gone_on_with(bench: Bench, n_bytes: int) -> None:
    """The file's limit lies within the second image: the kernel writes up to it. Then it is lifted."""
    measured = bench.new_path()
    await bench.start(N_IMAGES, measured)
    await feed(bench, bench.next_ids(N_IMAGES))
    await bench.end()
    with h5py.File(measured) as file:
        limit = file["entry/data/data"].id.get_chunk_info(1).byte_offset + n_bytes
    path, ids = bench.new_path(), bench.next_ids(N_IMAGES)
    writers: list[int] = []
    was_short = False
    with contextlib.ExitStack() as traced:

        def limit_it(writer: int) -> None:
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            traced.enter_context(strace_of(writer, "pwrite64:signal=SIGSTOP"))
            writers.append(writer)

        async def take_run() -> None:
            await start_with(bench, limit_it, path, N_IMAGES)
            await feed(bench, ids)
            await bench.end(60)

        run = asyncio.create_task(take_run())
        while not run.done():
            if writers and bench.writers and is_stopped(writers[0]):  # after each write
                if path.exists() and path.stat().st_size == limit:
                    was_short = True
                    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                    resource.prlimit(writers[0], resource.RLIMIT_FSIZE, unlimited)
                os.kill(writers[0], signal.SIGCONT)
            await asyncio.sleep(0.001)
    await run
    assert was_short
    assert bench.status.acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)


@pytest.mark.parametrize("limit", [0, 100, 5000, 16_000, 40_000, 70_000, 90_000])
async def test_a_limit_at_any_byte_fails_the_run(bench: Bench, limit: int) -> None:
    """As a quota does: the write that crosses it is short, the next one refused."""
    path, ids = bench.new_path(), bench.next_ids(N_IMAGES)
    bench.snapshots.clear()
    await start_with(
        bench,
        lambda writer: resource.prlimit(writer, resource.RLIMIT_FSIZE, (limit, limit)),
        path,
        N_IMAGES,
    )
    await feed(bench, ids)
    assert_failed_well(bench, path, ids, await bench.end(), "File too large")


@pytest.mark.parametrize("whole_folder", [False, True])
async def test_a_file_that_is_removed_during_the_run_is_no_success(bench: Bench, whole_folder: bool) -> None:
    """HDF5 would go on writing to what nobody can open any more."""
    folder = bench.folder / f"removed-{whole_folder}"
    folder.mkdir()
    path, ids = await bench.start(3, folder / "a.h5"), bench.next_ids(3)
    await bench.send(ids[:1])
    await bench.until_written(1)
    if whole_folder:
        shutil.rmtree(folder)
    else:
        path.unlink()
    await bench.send(ids[1:])
    acquisition = (await bench.end()).acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert acquisition.message == f"ERROR: {path} was removed while it was written; its images are lost."


@pytest.mark.parametrize("left", ["nothing", "half", "all but a byte"])
@pytest.mark.parametrize("n_after", [0, 2])
async def test_a_file_that_somebody_truncates_is_no_success(bench: Bench, left: str, n_after: int) -> None:
    """Whether more images come after that or not; the message has both sizes."""
    path, ids = await bench.start(0), bench.next_ids(3 + n_after)
    await bench.send(ids[:3])
    await bench.until_written(3)
    expected = path.stat().st_size
    seen = {"nothing": 0, "half": expected // 2, "all but a byte": expected - 1}[left]
    os.truncate(path, seen)
    if n_after:
        await bench.send(ids[3:])
        acquisition = (await bench.end(60)).acquisition
    else:
        acquisition = (await bench.stop()).acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert acquisition.message == (
        f"ERROR: {path} was truncated while it was written: it has {seen} bytes, "
        f"{expected} were written; its images are lost."
    )


async def test_a_file_that_is_replaced_during_the_run_is_no_success_and_the_other_is_left_alone(
    bench: Bench,
) -> None:
    other, ids = await bench.start(2), bench.next_ids(2)
    await bench.send(ids)
    await bench.end()
    path, ids = await bench.start(0), bench.next_ids(2)
    await bench.send(ids)
    await bench.until_written(2)
    theirs = other.read_bytes()
    os.replace(other, path)
    acquisition = (await bench.stop()).acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert acquisition.message == f"ERROR: {path} was removed while it was written; its images are lost."
    assert path.read_bytes() == theirs


async def test_an_open_ended_run_ends_when_its_file_is_removed(bench: Bench) -> None:
    path = await bench.start(0)
    path.unlink()
    sending = asyncio.create_task(bench.send(bench.next_ids(300), 50))
    assert "was removed" in (await bench.end(20)).acquisition.message
    await sending


async def test_a_file_that_is_renamed_during_the_run_is_said_so_and_whole(bench: Bench) -> None:
    folder = bench.folder / "renamed"
    folder.mkdir()
    path, ids = await bench.start(3, folder / "a.h5"), bench.next_ids(3)
    folder.rename(bench.folder / "elsewhere")
    await bench.send(ids)
    acquisition = (await bench.end()).acquisition
    assert acquisition.message == (
        f"ERROR: {path} was renamed while it was written; its images are where it is now."
    )
    assert_holds(bench.folder / "elsewhere" / "a.h5", bench.simulator, ids)
