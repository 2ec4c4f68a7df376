"""Step scans: how soon a run begins, how soon it ends, and what a run of ten images costs in all."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.runs import running_daq
from benchmarks.traffic import Traffic
from daq_core.control.daq import Daq
from daq_core.state.status import AcquisitionState, Snapshot, WriteRequest

FEW_ROWS = 16  # of an image: four packets
N_IMAGES = 10  # of a step of a scan
EXPOSURE_S = 0.001  # of each of them
MS = 1e3


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run, as its control process sees them."""

    to_waiting: float
    """From the request to WAITING_IMAGES."""
    to_finished: float
    """From the first packet of the last image to FINISHED."""
    in_all: float
    """From the request to FINISHED."""


def single_images(effort: Effort) -> list[Figure]:
    """Runs of one small image, one after the other."""
    runs = _measure(effort.n_runs, n_images=1)
    return [
        Figure.of_times("request to WAITING_IMAGES", [run.to_waiting for run in runs], goal="p50 ≤ 50 ms"),
        Figure.of_times(
            "first packet of the last image to FINISHED",
            [run.to_finished for run in runs],
            goal="p50 ≤ 50 ms",
        ),
    ]


def step_scan(effort: Effort) -> list[Figure]:
    """Runs of ten small images, one after the other; what is not exposure is what a scan waits for."""
    runs = _measure(effort.n_runs, n_images=N_IMAGES)
    exposure = (N_IMAGES - 1) * EXPOSURE_S * MS
    return [
        Figure.of_times(
            "a run of 10 images, without their exposure",
            [run.in_all - exposure for run in runs],
            goal="p50 ≤ 100 ms",  # as much as the two above together
            note=f"{len(runs)} runs one after the other in {sum(run.in_all for run in runs) / MS:.1f} s, "
            f"{exposure:.0f} ms of each exposure",
        )
    ]


def _measure(n_runs: int, n_images: int) -> list[Latency]:
    gc.collect()
    gc.freeze()  # as the service does: this process is its control process
    return asyncio.run(_take_runs(n_runs, n_images))


async def _take_runs(n_runs: int, n_images: int) -> list[Latency]:
    config = detectors.jungfrau(height=FEW_ROWS)
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder, Traffic(config) as traffic:
        async with running_daq(config) as daq:

            def send() -> Awaitable[object]:
                port, rate_hz = daq.snapshot.config.start_udp_port, 1 / EXPOSURE_S
                return asyncio.to_thread(traffic.send, port, n_images, rate_hz)

            return [
                await _one_run(daq, send, Path(folder, f"{number}.h5"), n_images) for number in range(n_runs)
            ]


async def _one_run(daq: Daq, send: Callable[[], Awaitable[object]], path: Path, n_images: int) -> Latency:
    finished_at: list[float] = []

    def note_the_end(snapshot: Snapshot) -> None:
        acquisition = snapshot.status.acquisition
        this_run = acquisition.request is not None and acquisition.request.output_file == str(path)
        if this_run and not acquisition.running:
            finished_at.append(time.time())

    unsubscribe = daq.subscribe(note_the_end)
    asked, asked_at = wall(), time.time()
    await daq.start(WriteRequest.checked(str(path), n_images))
    waiting = wall() - asked
    run_ended = asyncio.create_task(daq.wait())
    await send()
    status = await run_ended
    unsubscribe()
    if status.acquisition.state is not AcquisitionState.FINISHED:
        raise RuntimeError(status.acquisition.message)
    with h5py.File(path) as file:
        if not np.array_equal(file["entry/data/status"], np.zeros(n_images)):
            raise LostError(f"{path}: its images are not good")
        last_image = float(file["entry/data/timestamp"][-1])
    return Latency(waiting * MS, (finished_at[0] - last_image) * MS, (finished_at[0] - asked_at) * MS)


BENCHMARKS = (single_images, step_scan)
