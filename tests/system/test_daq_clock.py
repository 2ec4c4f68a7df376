"""A clock that is set, back or forward, while the DAQ runs: nothing waits for it, and nothing is lost.

Only what is shown as a time follows the clock; whatever measures a time uses one that nobody can set.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daq_core.showing.journal import Journal
from daq_core.state.status import DaqState
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq

DAY_S = 86_400


class Clock:
    """The clock of the control process."""

    def __init__(self) -> None:
        self._true = time.time
        self.offset_s = 0.0

    def __call__(self) -> float:
        return self._true() + self.offset_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest_asyncio.fixture
async def bench(tmp_path: Path, clock: Clock) -> AsyncIterator[Bench]:
    timeouts = {"first_image_timeout_s": 60, "stall_timeout_s": 60}
    async with loopback_daq(jungfrau(rows=16), tmp_path, state_dir=tmp_path, **timeouts) as bench:
        yield bench


@pytest.mark.parametrize("step_s", [-DAY_S, DAY_S, -1e9])
async def test_a_clock_that_is_set_during_a_run_disturbs_nothing(
    bench: Bench, clock: Clock, tmp_path: Path, step_s: float
) -> None:
    path, ids = await bench.start(20), bench.next_ids(20)
    await bench.send(ids[:5])
    await bench.until_written(5)
    clock.offset_s = step_s
    await bench.send(ids[5:])
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids)
    before = bench.daq.snapshot.config_id
    await bench.daq.configure({"image_timeout_s": 0.25})
    await bench.daq.reconfigured()
    await bench.until(DaqState.READY, timeout_s=30)
    after = bench.daq.snapshot.config_id
    assert tuple(map(int, after.split("-"))) > tuple(map(int, before.split("-")))
    clock.offset_s = 0
    await bench.perfect_run()
    assert all(
        rate >= 0
        for s in bench.snapshots
        for rate in (s.stats.detector.images_per_second, s.stats.writer.images_per_second)
    )
    assert bench.daq.snapshot.counters.write_latency_s >= 0
    await eventually(lambda: Journal(tmp_path).total == 2)  # its thread writes it
    assert Journal(tmp_path).unended == ()


async def test_a_clock_that_is_set_back_leaves_stop_and_timeouts_as_quick_as_ever(
    bench: Bench, clock: Clock
) -> None:
    await bench.start(0)
    clock.offset_s = -DAY_S
    await bench.stop()
    acquisition = bench.status.acquisition
    assert acquisition.message == "Interrupted."
    assert acquisition.start_time is not None
    assert acquisition.stop_time is not None
    assert acquisition.stop_time < acquisition.start_time  # as the clock said it
