"""A file system that hangs for real (frozen, so that every write to it waits): control is never blocked.

A frozen file system keeps its writers in the kernel, where no signal reaches
them: what is tested here cannot be played with SIGSTOP. Who reads from it does not
wait; that is played with a pipe.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from daq_core.errors import InvalidConfig, Unavailable
from daq_core.showing.journal import Journal
from daq_core.state.status import AcquisitionState, DaqState
from daq_core.writing import gain_maps
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq, marked_processes
from tests.machine.judges import absent

DISK_MIB = 64


def run(*command: object) -> str:
    """Run a command of the system; return what went wrong, "" for nothing."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.strip() or str(done.returncode) if done.returncode else ""


class Disk:
    """An ext4 file system in a file, that can be frozen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def freeze(self) -> None:
        assert run("fsfreeze", "--freeze", self.folder) == ""

    def thaw(self) -> None:
        run("fsfreeze", "--unfreeze", self.folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    image, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB * 2**20)
    for command in (("mkfs.ext4", "-q", image), ("mount", "-o", "loop", image, folder)):
        try:
            why = run(*command)
        except FileNotFoundError as error:
            why = str(error)
        if why:
            absent("mounts", f"no file system that could be frozen can be made: {why}")
    disk = Disk(folder)
    if why := run("fsfreeze", "--freeze", folder):
        run("umount", "--lazy", folder)
        absent("mounts", f"a file system cannot be frozen: {why}")
    disk.thaw()
    yield disk
    disk.thaw()
    run("umount", "--lazy", folder)


async def heartbeat(bench: Bench, until: Callable[[], bool]) -> float:
    """Return the longest time between two turns of the event loop until something is true."""
    longest, before = 0.0, time.monotonic()
    while not until():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


async def test_a_disk_that_hangs_during_a_run_is_ended_by_stop_and_others_go_on(
    disk: Disk, tmp_path: Path
) -> None:
    async with loopback_daq(jungfrau(rows=64), tmp_path) as bench:
        path = await bench.start(0, disk.folder / "a.h5")
        await bench.send(first := bench.next_ids(5))
        await bench.until_written(5)
        disk.freeze()
        try:
            await bench.send(rest := bench.next_ids(20))
            stopping = asyncio.create_task(bench.stop())
            assert await heartbeat(bench, stopping.done) < 2
            await stopping
            assert bench.status.acquisition.state is AcquisitionState.FAILED
            await bench.perfect_run()  # elsewhere, while that disk still hangs
        finally:
            disk.thaw()
        await eventually(lambda: repaired(path), 30)  # by itself, now that it can be
        with h5py.File(path) as file:
            n_readable = len(file["entry/data/data"])
        assert n_readable >= 5
        assert_holds(path, bench.simulator, [*first, *rest][:n_readable])


def repaired(path: Path) -> bool:
    try:
        with h5py.File(path) as file:
            return str(file["entry/run/state"].asstr()[()]) == "FAILED"
    except OSError:
        return False


async def test_a_disk_that_hangs_before_the_file_is_open_is_ended_by_stop(disk: Disk, tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=64), tmp_path) as bench:
        disk.freeze()
        try:
            starting = asyncio.create_task(bench.start(5, disk.folder / "a.h5"))
            pending = asyncio.create_task(bench.when(lambda s: s.status.pending is not None))
            await asyncio.wait({starting, pending}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            await bench.stop()
            with pytest.raises((RuntimeError, Unavailable)):
                await asyncio.wait_for(starting, 10)
            pending.cancel()
            assert bench.status.state is DaqState.READY
            await bench.perfect_run()
        finally:
            disk.thaw()


async def test_a_state_directory_that_hangs_holds_up_neither_runs_nor_stop(
    disk: Disk, tmp_path: Path
) -> None:
    """A start waits a second for its note; what was not written is when the disk answers again."""
    async with loopback_daq(jungfrau(rows=64), tmp_path, state_dir=disk.folder) as bench:
        await bench.perfect_run(5)
        disk.freeze()
        try:
            await bench.perfect_run(5)
            await bench.start(0)
            await bench.stop()
            assert bench.daq.snapshot.log_total == 3
        finally:
            disk.thaw()
        await eventually(lambda: Journal(disk.folder).total == 3, 30)
        assert Journal(disk.folder).unended == ()


async def test_gain_files_that_do_not_answer_refuse_the_config_and_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose reading takes longer than the deadline stands for a file system that hangs."""
    monkeypatch.setattr(gain_maps, "TIMEOUT_S", 0.02)
    n_modules = 16
    slow = tmp_path / "gains.h5"
    with h5py.File(slow, "w") as file:
        shape = (3, n_modules, 512, 1024)
        for name in ("gains", "pedestals"):  # what lacks one is refused at once
            file.create_dataset(name, shape, "f8", compression="gzip", compression_opts=1, fillvalue=1)[0] = 2
    async with loopback_daq(jungfrau(rows=64), tmp_path) as bench:
        before = bench.daq.snapshot.config
        changing = asyncio.create_task(
            bench.daq.configure({"n_modules": n_modules, "gain_file": str(slow), "pedestal_file": str(slow)})
        )
        assert await heartbeat(bench, changing.done) < 0.5
        with pytest.raises(InvalidConfig, match=r"gains\.h5 .* did not answer within 0\.02 s"):
            await changing
        assert bench.daq.snapshot.config == before
        await eventually(lambda: "daq-maps" not in marked_processes(bench.mark).values(), 30)
        await bench.perfect_run(5)
        await bench.daq.configure({"image_timeout_s": 1.5})
        await bench.daq.reconfigured()
        await bench.perfect_run(5)


async def test_a_pipe_in_the_place_of_a_gain_file_is_refused_at_once_and_no_process_stays(
    tmp_path: Path,
) -> None:
    """Who opens a pipe to read waits until somebody writes to it."""
    pipe = tmp_path / "gains.h5"
    os.mkfifo(pipe)
    async with loopback_daq(jungfrau(rows=64), tmp_path) as bench:
        with pytest.raises(InvalidConfig, match="it is a pipe, not a regular file"):
            await bench.daq.configure({"gain_file": str(pipe), "pedestal_file": str(pipe)})
        await eventually(lambda: "daq-maps" not in marked_processes(bench.mark).values(), 30)
        await bench.perfect_run(5)
