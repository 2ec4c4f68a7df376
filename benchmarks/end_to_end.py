"""What a run costs each process, and how soon it begins and ends."""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure, LostError, percentile
from benchmarks.receivers import CReceiver, Received
from benchmarks.runs import RunCost, running_daq, take_run
from benchmarks.traffic import Traffic
from daq_core.daq import Daq
from daq_core.status import AcquisitionState, Snapshot, WriteRequest

MAX_TRIES = 6
IMAGE_BYTES = 2**20
FEW_ROWS = 16  # of the images whose latency is measured: four packets


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


def latency(effort: Effort) -> list[Figure]:
    """Short runs of one small image, one after the other."""
    to_waiting, to_finished = asyncio.run(_measure_latency(effort.n_runs))
    note = "p50 {:.1f} ms, p99 {:.1f} ms of {} runs"
    return [
        Figure(
            "request to WAITING_IMAGES",
            "",
            tuple(to_waiting),
            goal="p50 ≤ 50 ms",
            note=note.format(percentile(to_waiting, 50), percentile(to_waiting, 99), len(to_waiting)),
            unit="ms",
        ),
        Figure(
            "first packet of the last image to FINISHED",
            "",
            tuple(to_finished),
            goal="p50 ≤ 50 ms",
            note=note.format(percentile(to_finished, 50), percentile(to_finished, 99), len(to_finished)),
            unit="ms",
        ),
    ]


async def _measure_latency(n_runs: int) -> tuple[list[float], list[float]]:
    config = detectors.jungfrau(height=FEW_ROWS)
    to_waiting, to_finished = [], []
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder, Traffic(config) as traffic:
        async with running_daq(config) as daq:
            for number in range(n_runs):
                waiting, finished = await _one_run(daq, traffic, Path(folder, f"{number}.h5"))
                to_waiting.append(waiting)
                to_finished.append(finished)
    return to_waiting, to_finished


async def _one_run(daq: Daq, traffic: Traffic, path: Path) -> tuple[float, float]:
    """Return the milliseconds from request to WAITING_IMAGES, and from last image to FINISHED."""
    finished_at: list[float] = []

    def note_the_end(snapshot: Snapshot) -> None:
        acquisition = snapshot.status.acquisition
        this_run = acquisition.request is not None and acquisition.request.output_file == str(path)
        if this_run and not acquisition.running:
            finished_at.append(time.time())

    unsubscribe = daq.subscribe(note_the_end)
    asked = wall()
    await daq.start(WriteRequest.checked(str(path), 1))
    waiting = wall() - asked
    run_ended = asyncio.create_task(daq.wait())
    await asyncio.to_thread(traffic.send, daq.snapshot.config.start_udp_port, 1, 0.0)
    status = await run_ended
    unsubscribe()
    if status.acquisition.state is not AcquisitionState.FINISHED:
        raise RuntimeError(status.acquisition.message)
    with h5py.File(path) as file:
        if not np.array_equal(file["entry/data/status"], [0]):
            raise LostError(f"{path}: its image is not good")
        first_packet = float(file["entry/data/timestamp"][0])
    return waiting * 1e3, (finished_at[0] - first_packet) * 1e3


BENCHMARKS = (cpu_of_each_process, latency)
