"""Stop → READY within five seconds, whichever processes stand still in whichever state of a run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import combinations

import pytest
import pytest_asyncio

from daq_core.errors import Unavailable
from daq_core.state.status import AcquisitionState, DaqState
from tests.daq.loopback import Bench, eventually, jungfrau, loopback_daq, standing_still
from tests.daq.run_states import STATES, run_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROCESSES = ("receiver", "writer", "fork_server")
FAULTS = [group for n in (1, 3) for group in combinations(PROCESSES, n)]
PAIRS = [pytest.param(pair, marks=pytest.mark.night) for pair in combinations(PROCESSES, 2)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(rows=16), tmp_path_factory.mktemp("faults")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq; when a fault is over, the next run of 100 images must be perfect."""
    yield module_bench
    await module_bench.until(DaqState.READY, timeout_s=30)
    await module_bench.perfect_run(100)
    await eventually(lambda: not module_bench.writers)


def pids_of(bench: Bench, names: tuple[str, ...]) -> list[int]:
    """Return the processes of these names that there are."""
    return [getattr(bench, name) for name in names if name != "writer" or bench.writers]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("fault", [*FAULTS, *PAIRS], ids="+".join)
async def test_stop_is_ready_in_time(bench: Bench, fault: tuple[str, ...], state: str) -> None:
    async with run_in(bench, state):
        with standing_still(pids_of(bench, fault)):
            await bench.stop()
        assert not bench.status.acquisition.running


async def test_a_start_whose_fork_server_stands_still_is_refused_in_time_and_changes_nothing(
    bench: Bench,
) -> None:
    before = bench.status
    with standing_still([bench.fork_server]):
        with pytest.raises(Unavailable, match="No writer process"):
            await asyncio.wait_for(bench.start(3), 20)
        assert bench.status == before
        await bench.stop()


async def test_a_killed_writer_and_a_fork_server_that_stands_still_are_over_with_a_stop(bench: Bench) -> None:
    await bench.start(0)
    await bench.send(bench.next_ids(3))
    await bench.until(AcquisitionState.WRITING)
    with standing_still([bench.fork_server]):
        os.kill(bench.writer, signal.SIGKILL)
        await bench.until(AcquisitionState.FAILED)
        await bench.stop()
