"""Runs that several writers share: every image in the file over theirs, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import numpy as np
import pytest
import pytest_asyncio

from daq_core.errors import InvalidRequest
from daq_core.files.layout import COLUMNS
from daq_core.files.parts import part_path, repair_run
from daq_core.simulating.sender import Burst, Sender
from daq_core.state.status import AcquisitionState, DaqState
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq, marked_processes

pytestmark = pytest.mark.asyncio(loop_scope="module")

N = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    config = jungfrau(2, rows=64, gap=2, number_of_writers=N, ram_buffer_gb=0.01)
    async with loopback_daq(config, tmp_path_factory.mktemp("writers")) as bench:
        yield bench


def part_writers(bench: Bench) -> list[int]:
    """Return the pids of the writers of the parts, by their numbers."""
    named = {name: pid for pid, name in marked_processes(bench.mark).items()}
    return [named[f"daq-writer-{number}"] for number in range(N)]


def assert_whole(bench: Bench, path: Path, ids: list[int]) -> None:
    """Demand every pixel through the virtual file, and the images in turn in the parts."""
    assert_holds(path, bench.simulator, ids)
    for number in range(N):
        assert_holds(Path(part_path(str(path), number)), bench.simulator, ids[number::N])
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data["present"][()].tolist() == [1] * len(ids)
        assert next(iter(file)) == "JF"
        for name in ("data", *COLUMNS):
            assert file["JF"][name] == data[name]
        if ids:
            assert data["data"].is_virtual
            sources = data["data"].virtual_sources()
            assert len(sources) == len(ids)
            assert not any("/" in source.file_name for source in sources)


@pytest.mark.parametrize("n_images", [1, 2, 3, 40])
async def test_images_go_to_the_files_in_turn_and_are_found_in_one(bench: Bench, n_images: int) -> None:
    """Fewer images than writers too."""
    path, ids = await bench.start(n_images), bench.next_ids(n_images)
    await bench.send(ids)
    status = await bench.end()
    assert (status.state, status.acquisition.message) == (DaqState.READY, "Completed.")
    assert status.acquisition.n_write_completed == n_images
    assert_whole(bench, path, ids)
    with h5py.File(path) as file, h5py.File(part_path(str(path), 0)) as part:
        assert file["entry/run/state"].asstr()[()] == "FINISHED"
        assert file["entry/run/message"].asstr()[()] == "Completed."
        assert file["entry/run/config"][()] == part["entry/run/config"][()]
        assert file["entry/run/counters/dropped_images"][()] == 0
        assert file["entry/run/n_writers"][()] == N


@pytest.mark.parametrize("n_images", [0, 7])
async def test_a_stopped_run_has_what_came_in(bench: Bench, n_images: int) -> None:
    path, ids = await bench.start(0), bench.next_ids(n_images)
    if ids:
        await bench.send(ids)
        await bench.until_written(n_images)
    await bench.stop()
    assert bench.status.acquisition.message == "Interrupted."
    assert_whole(bench, path, ids)
    with h5py.File(path) as file:
        assert file["entry/run/message"].asstr()[()] == "Interrupted."


async def test_a_part_that_somebody_truncates_fails_the_run(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(6)
    await bench.send(ids)
    await bench.until_written(6)
    part = part_path(str(path), 1)
    os.truncate(part, 5000)
    await bench.stop()
    acquisition = bench.status.acquisition
    assert acquisition.state is AcquisitionState.FAILED
    assert f"{part} was truncated while it was written: it has 5000 bytes" in acquisition.message


async def test_the_folder_can_be_moved_and_a_missing_part_shows(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    path, ids = await bench.start(9, tmp_path / "here" / "run.h5"), bench.next_ids(9)
    await bench.send(ids)
    await bench.end()
    shutil.move(tmp_path / "here", tmp_path / "there")
    path = tmp_path / "there" / "run.h5"
    assert_whole(bench, path, ids)
    os.unlink(part_path(str(path), 1))
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data["present"][()].tolist() == [1, 0, 1] * 3
        assert data["image_id"][()].tolist() == ids  # rows are not virtual
        for i, present in enumerate(data["present"][()]):
            expected = bench.simulator.image(ids[i]) if present else 0
            np.testing.assert_array_equal(data["data"][i], expected)


async def test_parts_may_be_compressed(bench: Bench) -> None:
    await bench.daq.configure({"compression": "bitshuffle-lz4"})
    await bench.daq.reconfigured()
    path, ids = await bench.start(20), bench.next_ids(20)
    await bench.send(ids)
    await bench.end()
    await bench.daq.configure({"compression": "none"})
    await bench.daq.reconfigured()
    assert_whole(bench, path, ids)


async def test_images_that_are_left_out_have_no_turn(bench: Bench) -> None:
    """All writers count the same images, those that are kept."""
    await bench.daq.configure({"incomplete_images": "drop"})
    await bench.daq.reconfigured()
    path, ids = await bench.start(0), bench.next_ids(8)
    left_out = ids[2::3]
    for image_id in ids:
        packets = bench.simulator.packets(image_id)
        sent = [packets[0][:-1], packets[1]] if image_id in left_out else packets
        with Sender(LOOPBACK, bench.simulator.ports) as sender:
            sender.send([Burst.of_packets(sent)], 0)
    await bench.when(lambda s: s.losses.dropped_images == len(left_out))
    await bench.stop()
    await bench.daq.configure({"incomplete_images": "write"})
    await bench.daq.reconfigured()
    assert_whole(bench, path, [image_id for image_id in ids if image_id not in left_out])


async def test_one_file_that_exists_refuses_the_run(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    existing = part_path(str(path), N - 1)
    await asyncio.to_thread(shutil.copy, __file__, existing)
    with pytest.raises(InvalidRequest, match=f"{existing} exists already"):
        await bench.start(5, path)
    assert os.listdir(tmp_path) == [os.path.basename(existing)]
    assert bench.status.state is DaqState.READY


async def until_repaired(bench: Bench, path: Path) -> None:
    await bench.until(DaqState.READY)
    await eventually(path.exists)


async def test_a_writer_that_is_lost_fails_the_run_and_every_counted_image_is_found(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(20)
    await bench.send(ids)
    await bench.until_written(20)
    os.kill(part_writers(bench)[1], signal.SIGKILL)
    status = await bench.end()
    assert status.acquisition.state is AcquisitionState.FAILED
    assert "writer lost" in status.acquisition.message
    assert status.acquisition.n_write_completed == 20
    await until_repaired(bench, path)
    assert_whole(bench, path, ids)
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        assert "writer lost" in file["entry/run/message"].asstr()[()]
    await bench.perfect_run()


async def test_a_lost_lead_takes_its_writers_along_and_the_files_are_repaired(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(20)
    await bench.send(ids)
    await bench.until_written(20)
    writers = part_writers(bench)
    os.kill(bench.writer, signal.SIGKILL)
    assert (await bench.end()).acquisition.state is AcquisitionState.FAILED
    await eventually(lambda: not any(pid in marked_processes(bench.mark) for pid in writers))
    await until_repaired(bench, path)
    assert_whole(bench, path, ids)
    await bench.perfect_run()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still, as one does whose disk takes no more."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_slowest_writer_keeps_its_images_and_new_ones_are_dropped_and_counted(bench: Bench) -> None:
    """What it has not written yet is not overwritten, although the others are far ahead."""
    n_slots = bench.counters().ring_slots
    path, ids = await bench.start(0), bench.next_ids(2 * n_slots)
    with stopped(part_writers(bench)[2]):
        await bench.send(ids)
        await eventually(lambda: bench.daq.snapshot.losses.dropped_images > 0)
        kept = ids[:n_slots]
    await bench.when(lambda s: s.status.acquisition.n_write_completed >= len(kept))
    await bench.stop()
    dropped = bench.daq.snapshot.losses.dropped_images
    with h5py.File(path) as file:
        found = file["entry/data/image_id"][()].tolist()
    assert found[: len(kept)] == kept
    assert len(found) + dropped == len(ids)
    assert_whole(bench, path, found)


async def test_files_of_a_service_that_is_gone_are_put_together_by_hand(bench: Bench) -> None:
    path, ids = await bench.start(8), bench.next_ids(8)
    await bench.send(ids)
    await bench.end()
    path.unlink()
    report = await asyncio.to_thread(repair_run, str(path))
    assert (report.outcome, report.n_images) == ("repaired", 8)
    assert_whole(bench, path, ids)
    assert (await asyncio.to_thread(repair_run, str(path))).outcome == "intact"
    os.unlink(part_path(str(path), 0))
    path.unlink()
    report = await asyncio.to_thread(repair_run, str(path))
    assert report.n_images == 5
    with h5py.File(path) as file:
        assert file["entry/data/image_id"][()].tolist() == [i for n, i in enumerate(ids) if n % N]
        assert file["entry/run/message"].asstr()[()] == "ERROR: 1 of the run's files cannot be read."
