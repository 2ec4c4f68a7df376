"""Whole runs through the one door, in this process, which is their control process.

:func:`take_run` is what the other subjects measure with: sender → receiver → file,
with every loss counter looked at and images of the file compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import numpy as np

from benchmarks.cpu import process_cpu, wall
from benchmarks.figure import LostError
from benchmarks.receivers import N_COMPARED, known_pixels
from benchmarks.traffic import Sent, Traffic
from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from daq_core.processes.forks import ForkServer
from daq_core.state.options import DaqOptions
from daq_core.state.status import AcquisitionState, Snapshot, WriteRequest

QUIET_S, QUIET_LIMIT_S = 0.2, 20.0


@dataclass(frozen=True)
class RunCost:
    """What one complete, lossless run cost: CPU seconds of each process, and time."""

    n_images: int
    n_packets: int
    control_s: float
    receiver_s: float
    writer_s: float
    sent: Sent
    seconds: float
    """From the first packet sent to FINISHED."""

    @property
    def packets_per_second(self) -> float:
        return self.n_packets / self.seconds

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes, the sender's too."""
        return self.control_s + self.receiver_s + self.writer_s + self.sent.cpu_s


@contextlib.asynccontextmanager
async def running_daq(config: DaqConfig) -> AsyncIterator[Daq]:
    async with Daq(config, DaqOptions(udp_host="127.0.0.1"), ForkServer("ERROR")) as daq:
        await _until_quiet(daq)
        yield daq


async def _until_quiet(daq: Daq) -> None:
    """Wait until the receiver has given the whole ring its pages, which would count as receiving."""
    receiver = daq.receiver_pid
    deadline, used = wall() + QUIET_LIMIT_S, process_cpu(receiver)
    while wall() < deadline:
        await asyncio.sleep(QUIET_S)
        before, used = used, process_cpu(receiver)
        if used - before < QUIET_S / 20:
            return


async def take_run(
    daq: Daq, traffic: Traffic, path: Path, n_images: int, rate_hz: float, *, n_compared: int = N_COMPARED
) -> RunCost:
    """Write a run; LostError when anything is missing, or one of some images differs. The file is removed."""
    before = daq.snapshot.counters
    first_id = traffic.next_id
    try:
        await daq.start(WriteRequest.checked(str(path), n_images))
        processes = _Processes()
        ending = daq.subscribe(processes.look)
        sending = asyncio.create_task(
            asyncio.to_thread(traffic.send, daq.snapshot.config.start_udp_port, n_images, rate_hz)
        )
        sent = await sending
        run_ended = asyncio.create_task(daq.wait())
        patience = 5 + (wall() - sent.start)
        if not (await asyncio.wait({run_ended}, timeout=patience))[0]:
            await daq.stop()  # images were lost, and the run waits for more
        status = await run_ended
        end = wall()
        ending()
        control, receiver, writer = processes.used()
        after = daq.snapshot.counters
        placed = after.packets_placed - before.packets_placed
        losses = daq.snapshot.losses
        if status.acquisition.state is not AcquisitionState.FINISHED:
            raise RuntimeError(status.acquisition.message)
        if placed != sent.n_packets or losses.dropped_images or losses.incomplete_images:
            raise LostError(f"{sent.n_packets} packets sent, {placed} placed, {losses}")
        await asyncio.to_thread(_check_file, path, traffic, first_id, n_images, n_compared)
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    return RunCost(n_images, sent.n_packets, control, receiver, writer, sent, end - sent.start)


def _check_file(path: Path, traffic: Traffic, first_id: int, n_images: int, n_compared: int) -> None:
    """Compare the file's image ids and status with what was sent, and some images' pixels."""
    pixels = known_pixels(traffic.config, traffic.pictures)
    with h5py.File(path) as file:
        data = file["entry/data"]
        if not np.array_equal(data["image_id"], np.arange(first_id, first_id + n_images)):
            raise LostError(f"{path} has other images than were sent")
        if data["status"][:].any():
            raise LostError(f"{path} has images that are not good")
        for row in np.unique(np.linspace(0, n_images - 1, n_compared).astype(int)):
            if (data["data"][row] != pixels(first_id + row)).any():
                raise LostError(f"image {row} of {path} has other pixels than were sent")


class _Processes:
    """CPU time of the control process, which is this one, of its receiver and of the run's writer.

    A writer is gone as soon as its run has ended, and its CPU time with it: it is read
    at each snapshot, some fifty times a second; what it uses after the last is missing.
    """

    def __init__(self) -> None:
        # The fork server has two children now, in the order of their birth.
        self._receiver, *_, self._writer = _forked_by(os.getpid())
        self._start = self._read()
        self._writer_s = 0.0

    def _read(self) -> tuple[float, float]:
        return process_cpu(), process_cpu(self._receiver)

    def look(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._writer_s = process_cpu(self._writer)

    def used(self) -> tuple[float, float, float]:
        control, receiver = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return control, receiver, self._writer_s


def _forked_by(control: int) -> list[int]:
    """Return the pids of the processes that a control process's fork server has forked."""
    servers = [pid for pid in _children(control) if "daq_core.fork_server" in _command(pid)]
    return _children(servers[-1])


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []  # it has just ended


def _children(parent: int) -> list[int]:
    """Return the pids of a process's children, whichever of its threads made them."""
    pids = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            pids += [int(pid) for pid in (task / "children").read_text().split()]
    return pids
