"""A disk that takes nothing for a while: it is said before an image is dropped, and only new ones suffer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import pytest

from daq_core.state.status import AcquisitionState, DaqState
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq

WARNING = "the image ring is nearly full"


async def longest_turn(done: asyncio.Event) -> float:
    """Return the longest time between two turns of the event loop until something is done."""
    longest, before = 0.0, time.monotonic()
    while not done.is_set():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


def first(bench: Bench, what: str) -> int:
    """Return which snapshot was the first of which something is true."""
    conditions = {
        "warned": lambda s: WARNING in s.health.warning,
        "in alarm": lambda s: s.counters.ring_used >= 0.7 * s.counters.ring_slots,
        "dropped": lambda s: s.losses.dropped_images > 0,
    }
    return next(i for i, snapshot in enumerate(bench.snapshots) if conditions[what](snapshot))


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
async def test_a_full_ring_is_announced_and_drops_the_newest_images_alone(
    tmp_path: Path, compression: str
) -> None:
    config = jungfrau(rows=64, ram_buffer_gb=0.01, compression=compression)
    async with loopback_daq(config, tmp_path) as bench:
        n_slots = bench.counters().ring_slots
        path, ids = await bench.start(0), bench.next_ids(2 * n_slots)
        held = asyncio.Event()
        turns = asyncio.create_task(longest_turn(held))
        os.kill(bench.writer, signal.SIGSTOP)
        try:
            await bench.send(ids)
            await eventually(lambda: bench.daq.snapshot.losses.dropped_images == len(ids) - n_slots)
            assert first(bench, "warned") == first(bench, "in alarm") < first(bench, "dropped")
            assert bench.status.state is DaqState.WRITING
            counters = bench.counters()
            assert (counters.ring_used, counters.ring_high_water) == (n_slots, n_slots)
        finally:
            os.kill(bench.writer, signal.SIGCONT)
            held.set()
        assert await turns < 2  # control goes on answering
        await bench.until_written(n_slots)
        assert WARNING not in (await bench.when(lambda s: s.counters.ring_used == 0)).health.warning
        late = bench.next_ids(10)
        await bench.send(late)  # there is room again
        await bench.until_written(n_slots + 10)
        await bench.stop()
        assert_holds(path, bench.simulator, [*ids[:n_slots], *late])
        losses = bench.daq.snapshot.losses
        assert (losses.dropped_images, losses.incomplete_images) == (len(ids) - n_slots, 0)
        assert bench.status.acquisition.state is AcquisitionState.FINISHED
        with h5py.File(path) as file:
            assert file["entry/run/counters/dropped_images"][()] == len(ids) - n_slots
        await bench.perfect_run()
