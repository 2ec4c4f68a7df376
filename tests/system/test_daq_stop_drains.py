"""What was in the sockets when Stop came is in the file, and no stream holds up Stop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from daq_core.state.receive_threads import ReceiveThreads
from daq_core.state.status import AcquisitionState
from tests.daq.filled_sockets import send_to_sockets
from tests.daq.loopback import Bench, assert_holds, jungfrau, loopback_daq, standing_still
from tests.daq.run_states import run_in
from tests.system.test_daq_images import image_ids

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_IMAGES = 6  # of 2 packets a port: that fits into any socket


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[1, 3])
async def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    threads = ReceiveThreads(request.param)
    config = jungfrau(3, rows=8)
    async with loopback_daq(config, tmp_path_factory.mktemp("drains"), receive_threads=threads) as bench:
        yield bench


def assert_holds_all(path: Path, bench: Bench, ids: list[int]) -> None:
    """Demand these images, in whichever order several threads found them."""
    order = image_ids(path)
    assert sorted(order) == ids
    assert_holds(path, bench.simulator, order)


async def test_images_that_wait_in_the_sockets_when_stop_comes_are_in_the_file(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(2 * N_IMAGES)
    await bench.send(ids[:N_IMAGES])
    await bench.until_written(N_IMAGES)
    with standing_still([bench.receiver]):
        await send_to_sockets(bench, ids[N_IMAGES:])
        stopping = asyncio.create_task(bench.stop())
        await bench.until(AcquisitionState.FLUSHING_IMAGES)
    status = await stopping
    assert (status.acquisition.message, status.acquisition.n_write_completed) == ("Interrupted.", len(ids))
    assert_holds_all(path, bench, ids)


async def test_a_run_of_which_the_receiver_saw_neither_start_nor_stop_has_its_images(bench: Bench) -> None:
    ids = bench.next_ids(N_IMAGES)
    with standing_still([bench.receiver]):
        path = await bench.start(0)
        await send_to_sockets(bench, ids)
        stopping = asyncio.create_task(bench.stop())
        await bench.until(AcquisitionState.FLUSHING_IMAGES)
    assert (await stopping).acquisition.n_write_completed == N_IMAGES
    assert_holds_all(path, bench, ids)


async def test_a_run_that_gets_the_last_of_its_images_from_the_sockets_is_completed(bench: Bench) -> None:
    path, ids = await bench.start(N_IMAGES), bench.next_ids(N_IMAGES)
    with standing_still([bench.receiver]):
        await send_to_sockets(bench, ids)
        stopping = asyncio.create_task(bench.stop())
        await bench.until(AcquisitionState.FLUSHING_IMAGES)
    assert (await stopping).acquisition.message == "Completed."
    assert_holds_all(path, bench, ids)


async def test_a_run_that_was_stopped_before_its_file_was_open_takes_no_image(bench: Bench) -> None:
    with endless_stream(bench):
        async with run_in(bench, "OPENING") as path:
            stopping = asyncio.create_task(bench.stop())
            await bench.when(lambda s: s.status.stopping)
        await stopping
    assert image_ids(path) == []


async def test_a_stream_without_end_does_not_hold_up_stop(bench: Bench) -> None:
    """As fast as the sender can, on a machine that has other things to do, too."""
    path = await bench.start(0)
    with endless_stream(bench):
        await bench.until_written(20)
        status = await bench.stop()
    assert len(image_ids(path)) == status.acquisition.n_write_completed >= 20


@contextlib.contextmanager
def endless_stream(bench: Bench) -> Iterator[None]:
    """Send images as fast as possible while the body runs."""
    enough = threading.Event()
    first = bench.next_ids(1_000_000)[0]
    sending = threading.Thread(
        target=lambda: bench.simulator.send(0, 0, first_id=first, stop=enough), daemon=True
    )
    sending.start()
    try:
        yield
    finally:
        enough.set()
        sending.join()
