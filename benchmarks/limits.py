"""The highest rates at which nothing is lost, with the sender on the same two cores."""

from __future__ import annotations

import asyncio
import mmap
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import detectors
from benchmarks.cpu import use_two_cores, wall
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.receivers import CReceiver, OurReceiver, Received
from benchmarks.runs import RunCost, running_daq, take_run
from benchmarks.traffic import Traffic

FASTEST = 0.0  # a rate: as fast as the sender can
MOST_ROUNDS = 3
RANGE = 8  # the search begins between the flood and an eighth of it
PACKET_BYTES = 8192
CALL_BYTES = 2**20  # of a plain writer: an image

Reached = tuple[float, RunCost | Received]
"""Packets a second, and the lossless trial that reached them."""


def highest_lossless_rate(effort: Effort) -> list[Figure]:
    """A Jungfrau module: without a file, and from the sender into a file."""
    return asyncio.run(_measure(effort))


async def _measure(effort: Effort) -> list[Figure]:
    config = detectors.jungfrau()
    to_daq = config.merge({"start_udp_port": detectors.free_ports(1)})
    ours, files, theirs, disks = [], [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder,
        CReceiver("drop", config) as c_receiver,
        OurReceiver(config) as our_receiver,
        Traffic(config) as traffic,
    ):
        path = Path(folder, "run.h5")
        async with running_daq(to_daq) as daq:

            async def into_c(n_images: int, rate_hz: float) -> Received:
                return await asyncio.to_thread(c_receiver.receive, traffic, n_images, rate_hz)

            async def into_memory(n_images: int, rate_hz: float) -> Received:
                return await asyncio.to_thread(our_receiver.receive, traffic, n_images, rate_hz)

            async def into_file(n_images: int, rate_hz: float) -> RunCost:
                return await take_run(daq, traffic, path, n_images, rate_hz)

            for _ in range(min(effort.rounds, MOST_ROUNDS)):
                theirs.append(await search(into_c, traffic.n_packets, effort))
                ours.append(await search(into_memory, traffic.n_packets, effort))
                files.append(await search(into_file, traffic.n_packets, effort))
                n_bytes = files[-1][1].n_packets * PACKET_BYTES
                disks.append(await asyncio.to_thread(_disk, Path(folder), n_bytes))
    reference = "C receiver that drops payloads"
    in_files = f"{_gigabytes(files):.2f} GB/s into the file system of {tempfile.gettempdir()}"
    return [
        Figure.ratio(
            "highest lossless rate, no file",
            reference,
            [(a[0] / 1e3, b[0] / 1e3) for a, b in zip(ours, theirs, strict=True)],
            goal="≥ 0.70",
            unit="kpps",
            note=f"{_gigabytes(ours):.2f} GB/s",
        ),
        Figure.ratio(
            "highest lossless rate, sender to file",
            reference,
            [(a[0] / 1e3, b[0] / 1e3) for a, b in zip(files, theirs, strict=True)],
            unit="kpps",
            note=in_files,
        ),
        Figure.ratio(
            "sender to file, of what the machine could do",
            "the least of: that C receiver, cores / CPU per packet of all processes, a plain writer",
            [
                (rate / 1e3, min(received, _cores(trial), disk) / 1e3)
                for (rate, trial), (received, _), disk in zip(files, theirs, disks, strict=True)
                if isinstance(trial, RunCost)
            ],
            goal="≥ 0.75",
            unit="kpps",
            note=f"a plain writer takes {statistics.median(disks) * PACKET_BYTES / 1e9:.2f} GB/s",
        ),
    ]


async def search(
    trial: Callable[[int, float], Awaitable[Received | RunCost]], n_packets: int, effort: Effort
) -> Reached:
    """Return the highest rate at which a trial lost nothing, by halving the interval's logarithm.

    The rate is that of a whole trial, until its last packet was where it belongs: what
    socket buffers and ring can hold does not make a trial faster.
    """

    async def attempt(rate_hz: float) -> Received | RunCost | None:
        planned = rate_hz or effort.packets_per_second * 2 / n_packets
        try:
            return await trial(max(2, round(planned * effort.seconds * 2)), rate_hz)
        except LostError:
            return None

    best = await attempt(FASTEST)
    low, high = effort.packets_per_second / RANGE / n_packets, effort.packets_per_second * 4 / n_packets
    for _ in range(0 if best else effort.n_steps):
        middle = (low * high) ** 0.5
        reached = await attempt(middle)
        if reached:
            low, best = middle, reached
        else:
            high = middle
    while not best:  # every trial lost something: go down until one does not
        best = await attempt(low)
        low /= 2
        if low * n_packets < 100:
            raise LostError("packets are lost at any rate")
    return best.packets_per_second, best


def _cores(run: RunCost) -> float:
    """Return the packets a second that the cores could do if none ever waited."""
    return use_two_cores() * run.n_packets / run.cpu_s


def _disk(folder: Path, n_bytes: int) -> float:
    """Return the packets a second that one thread writes to a file, by the faster of two ways."""
    return max(_written(folder / "plain", n_bytes, way) for way in (0, os.O_DIRECT)) / PACKET_BYTES


def _written(path: Path, n_bytes: int, way: int) -> float:
    """Return the bytes a second of a new file, through the page cache or past it; 0 where that cannot be."""
    with mmap.mmap(-1, CALL_BYTES) as memory:
        memory.write(os.urandom(CALL_BYTES))
        start = wall()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | way)
            try:
                for at in range(0, n_bytes, CALL_BYTES):
                    os.pwrite(descriptor, memory, at)
            finally:
                os.close(descriptor)
            return n_bytes / (wall() - start)
        except OSError:
            if not way:
                raise
            return 0.0  # no O_DIRECT here
        finally:
            path.unlink(missing_ok=True)


def _gigabytes(reached: list[Reached]) -> float:
    return statistics.median(rate for rate, _ in reached) * PACKET_BYTES / 1e9


BENCHMARKS = (highest_lossless_rate,)
