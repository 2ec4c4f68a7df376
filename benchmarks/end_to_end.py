"""What a run costs each process, in CPU time."""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import time
from pathlib import Path

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.receivers import CReceiver, Received
from benchmarks.runs import RunCost, running_daq, take_run
from benchmarks.traffic import Traffic

MAX_TRIES = 6
IMAGE_BYTES = 2**20


def cpu_of_each_process(effort: Effort) -> list[Figure]:
    """A Jungfrau module a image, from socket to file; the writer's reference writes to the same folder."""
    costs = asyncio.run(_measure_costs(effort))
    where = f"{costs[0][0].packets_per_second / 1000:.0f} kpps"

    def per_image(run: RunCost, seconds: float) -> float:
        return seconds / run.n_images * 1e3

    total = [per_image(run, run.control_s + run.receiver_s + run.writer_s) for run, _, _ in costs]
    return [
        Figure.ratio(
            "receiver",
            "C recvmmsg, scattered into place",
            [(per_image(run, run.receiver_s), c.cpu_s / run.n_images * 1e3) for run, c, _ in costs],
            unit="ms/image",
            note=where,
        ),
        Figure.ratio(
            "writer",
            "os.pwrite at the same pace, from the reference's ring",
            [(per_image(run, run.writer_s), pwrite) for run, _, pwrite in costs],
            unit="ms/image",
            note=where,
        ),
        Figure.ratio(
            "control",
            "receiver and writer",
            [
                (per_image(run, run.control_s), per_image(run, run.receiver_s + run.writer_s))
                for run, _, _ in costs
            ],
            unit="ms/image",
            note=where,
        ),
        Figure("all three, for an image of 1 MiB", "", tuple(total), note=where, unit="ms"),
    ]


async def _measure_costs(effort: Effort) -> list[tuple[RunCost, Received, float]]:
    config = detectors.jungfrau()
    rate = effort.packets_per_second / 2
    costs: list[tuple[RunCost, Received, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder,
        Traffic(config) as traffic,
        CReceiver("scatter", config) as c_receiver,
    ):
        async with running_daq(config) as daq:
            n_tries = 0
            while len(costs) < effort.rounds:
                rate_hz = rate / traffic.n_packets
                n_images = max(2, round(rate_hz * effort.seconds * 2))
                try:
                    run = await take_run(
                        daq, traffic, Path(folder, f"{traffic.next_id}.h5"), n_images, rate_hz
                    )
                    c, pwrite = await asyncio.gather(
                        asyncio.to_thread(c_receiver.receive, traffic, n_images, rate_hz),
                        asyncio.to_thread(
                            _pwrite, Path(folder, "plain"), c_receiver.memory, n_images, rate_hz
                        ),
                    )
                except LostError:
                    n_tries += 1
                    if n_tries == MAX_TRIES:
                        raise
                    rate *= 0.7
                    continue
                costs.append((run, c, pwrite))
    return costs


def _pwrite(path: Path, ring: int, n_images: int, rate_hz: float) -> float:
    """Write images from the reference's ring while it receives; return the CPU milliseconds of one."""
    with mmap.mmap(ring, 0) as memory, open(path, "wb", buffering=0) as file:
        n_slots = len(memory) // IMAGE_BYTES
        view = memoryview(memory)
        begin, cpu = wall(), time.thread_time()
        for number in range(n_images):
            time.sleep(max(0.0, begin + number / rate_hz - wall()))
            at = number % n_slots * IMAGE_BYTES
            os.pwrite(file.fileno(), view[at : at + IMAGE_BYTES], number * IMAGE_BYTES)
        used = time.thread_time() - cpu
        view.release()
    path.unlink()
    return used / n_images * 1e3


BENCHMARKS = (cpu_of_each_process,)
