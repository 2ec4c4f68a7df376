"""Runs that wait too long for images: they end by themselves, as FAILED, and keep what they have."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import h5py

from daq_core.state.status import AcquisitionState, DaqState
from tests.daq.loopback import Bench, assert_holds, jungfrau, loopback_daq


def assert_failed(bench: Bench, path: Path, reason: str, n_images: int) -> None:
    """Demand that the run is FAILED for this reason, wherever it is shown, and in the log once."""
    acquisition = bench.status.acquisition
    assert (bench.status.state, acquisition.state) == (DaqState.READY, AcquisitionState.FAILED)
    assert acquisition.message == f"ERROR: {reason}"
    assert acquisition.n_write_completed == n_images
    assert [a.request for a in bench.daq.snapshot.log].count(acquisition.request) == 1
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        assert file["entry/run/message"].asstr()[()] == acquisition.message


async def test_a_run_whose_first_image_does_not_come_fails(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path, first_image_timeout_s=0.5) as bench:
        path = await bench.start(5)
        await bench.end(30)
        assert_failed(bench, path, "no image came within 0.5 s", 0)
        assert_holds(path, bench.simulator, [])
        await bench.perfect_run()


async def test_a_run_whose_images_stop_fails_and_keeps_those_it_has(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path, stall_timeout_s=0.5) as bench:
        path, ids = await bench.start(5), bench.next_ids(3)
        await asyncio.sleep(1)
        assert bench.status.acquisition.state is AcquisitionState.WAITING_IMAGES
        await bench.send(ids)
        await bench.end(30)
        assert_failed(bench, path, "images stopped: none came for 0.5 s after image 3", 3)
        assert_holds(path, bench.simulator, ids)
        await bench.perfect_run()


async def test_images_that_keep_coming_slowly_are_no_stall(tmp_path: Path) -> None:
    async with loopback_daq(
        jungfrau(rows=16), tmp_path, first_image_timeout_s=20, stall_timeout_s=20
    ) as bench:
        path, ids = await bench.start(4), bench.next_ids(4)
        for image_id in ids:
            await bench.send([image_id])
            await asyncio.sleep(0.2)
        assert (await bench.end()).acquisition.message == "Completed."
        assert_holds(path, bench.simulator, ids)


async def test_a_complete_run_whose_disk_is_slow_is_no_stall(tmp_path: Path) -> None:
    """All images are in memory: what is waited for then is the writer."""
    async with loopback_daq(jungfrau(rows=16), tmp_path, stall_timeout_s=0.5) as bench:
        path, ids = await bench.start(4), bench.next_ids(4)
        writer = bench.writer
        os.kill(writer, signal.SIGSTOP)
        try:
            await bench.send(ids)
            await asyncio.sleep(1.5)
        finally:
            os.kill(writer, signal.SIGCONT)
        assert (await bench.end()).acquisition.message == "Completed."
        assert_holds(path, bench.simulator, ids)


async def test_a_stop_during_the_wait_is_an_interrupted_run(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path, first_image_timeout_s=30) as bench:
        await bench.start(5)
        assert (await bench.stop()).acquisition.message == "Interrupted."


async def test_stop_ends_a_run_that_timed_out_on_a_disk_that_hangs(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path, first_image_timeout_s=0.5) as bench:
        await bench.start(5)
        os.kill(bench.writer, signal.SIGSTOP)
        await bench.until(AcquisitionState.FLUSHING_IMAGES)
        await bench.stop()
        assert bench.status.acquisition.state is AcquisitionState.FAILED
        await bench.perfect_run()
