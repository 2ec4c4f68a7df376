"""A detector that is armed again and again in one run, over UDP: all of it is in the file, each image once.

The whole matrix is in ``tests/property/test_bursts.py``, without sockets.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable

import h5py
import pytest
import pytest_asyncio

from daq_core.state.receive_threads import ReceiveThreads
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, assert_holds, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS, N_PACKETS = 16, 4  # of a module


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    threads = ReceiveThreads(2)
    folder = tmp_path_factory.mktemp("bursts")
    async with loopback_daq(jungfrau(2, rows=ROWS), folder, receive_threads=threads) as bench:
        yield bench


async def begin_anew(bench: Bench, n_modules: int) -> None:
    """Have another receiver, of so many modules; it has seen nothing."""
    start = bench.daq.snapshot.config.start_udp_port
    config = jungfrau(n_modules, rows=ROWS, start_udp_port=start).as_dict()
    changes = {"image_timeout_s": 0.4 if bench.daq.snapshot.config.image_timeout_s == 0.5 else 0.5}
    await bench.daq.configure(config | changes)
    await bench.daq.reconfigured()


def send(bench: Bench, *packets: tuple[int, int, int]) -> None:
    """Send packets by frame, module and place within the module's frame."""
    start = bench.daq.snapshot.config.start_udp_port
    made = {frame: bench.simulator.packets(frame) for frame in {frame for frame, _, _ in packets}}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for frame, module, nth in packets:
            sender.sendto(made[frame][module][nth].tobytes(), (LOOPBACK, start + module))


def whole(frames: Iterable[int], n_modules: int = 1) -> list[tuple[int, int, int]]:
    return [(f, module, nth) for f in frames for nth in range(N_PACKETS) for module in range(n_modules)]


@pytest.mark.parametrize(
    ("n_modules", "n_images", "n_bursts", "gap_s"),
    [
        (1, 5, 6, 0.01),
        (1, 20, 3, 0.1),
        (1, 50, 2, 0.01),
        (1, 51, 2, 0.1),
        (2, 5, 5, 0.1),
        (2, 20, 4, 0.01),
        (2, 60, 2, 0.01),
        (2, 50, 2, 1.0),
        (8, 5, 4, 0.01),
        (8, 51, 2, 0.1),
        (1, 1, 3, 1.0),
        (2, 1, 3, 1.0),
    ],
)
async def test_every_image_of_every_burst_is_in_the_file(
    bench: Bench, n_modules: int, n_images: int, n_bursts: int, gap_s: float
) -> None:
    if len(bench.daq.snapshot.config.module_positions) != n_modules:
        await begin_anew(bench, n_modules)
    restarts = bench.counters().id_restarts
    path = await bench.start(n_images * n_bursts)
    for burst in range(n_bursts):
        if burst:
            await asyncio.sleep(gap_s)  # the detector's, not the test's
        await bench.send(range(1, n_images + 1), rate_hz=500)
    assert (await bench.end(60)).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, [*range(1, n_images + 1)] * n_bursts)
    assert bench.counters().id_restarts - restarts == n_bursts - 1


@pytest.mark.parametrize("k", [1, 2, N_PACKETS - 1])
async def test_an_image_whose_first_packets_came_before_the_run_is_not_in_it(bench: Bench, k: int) -> None:
    """The numbers begin anew just before the run, so that the image in flight has a number that was there."""
    await begin_anew(bench, 1)
    seen = bench.counters().packets_received
    send(bench, *whole(range(1, 6)))
    await bench.counted(seen + 5 * N_PACKETS)
    await asyncio.sleep(0.1)
    send(bench, *whole([1])[:k])
    await bench.counted(seen + 5 * N_PACKETS + k)
    path = await bench.start(2)
    send(bench, *whole([1])[k:], *whole([2, 3]))
    assert (await bench.end(60)).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, [2, 3])


async def test_an_image_in_flight_that_was_given_up_before_the_run_is_not_in_it(bench: Bench) -> None:
    await begin_anew(bench, 2)
    published = bench.counters().images_published
    send(bench, (7, 0, 0), (7, 1, 0))
    await bench.when(lambda s: s.counters.images_published > published, timeout_s=60)
    path = await bench.start(2)
    send(bench, *[p for p in whole([7], 2) if p[2] > 0], *whole([8, 9], 2))
    assert (await bench.end(60)).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, [8, 9])


async def test_the_first_frame_after_a_receivers_start_is_not_taken_from_its_middle_on(bench: Bench) -> None:
    """Of one port even: then the image is nobody's, whatever the other port has of it."""
    await begin_anew(bench, 2)
    path = await bench.start(2)
    cut = [p for p in whole([7], 2) if p[1:] not in ((1, 0), (1, 1))]
    send(bench, *cut, *whole([8, 9], 2))
    assert (await bench.end(60)).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, [8, 9])


async def test_the_first_frame_after_a_receivers_start_is_taken_when_only_its_order_is_another(
    bench: Bench,
) -> None:
    await begin_anew(bench, 2)
    path = await bench.start(2)
    send(bench, *whole([7], 2)[::-1], *whole([8], 2))
    assert (await bench.end(60)).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, [7, 8])


async def test_a_module_that_counts_from_elsewhere_is_named_in_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await begin_anew(bench, 2)
    restarts = bench.counters().id_restarts
    path = await bench.start(0)
    for i in range(1, 80):
        send(bench, *[(i + 1000 * module, module, nth) for nth in range(N_PACKETS) for module in (0, 1)])
    told = "module 1 counts 1000 images ahead of module 0"
    await bench.when(lambda s: told in s.health.warning, timeout_s=60)
    await bench.stop()
    assert told in caplog.text
    assert bench.counters().id_restarts == restarts
    with h5py.File(path) as file:
        ids = file["entry/data/image_id"][:].tolist()
    assert len(set(ids)) == len(ids)


async def test_a_module_that_lags_is_named_in_a_warning_with_its_distance(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await begin_anew(bench, 2)
    restarts, lag = bench.counters().id_restarts, 120
    path = await bench.start(0)
    for i in range(1, 200 + lag, 10):
        images = [(i + k - lag * m, m) for k in range(10) for m in (0, 1) if 0 < i + k - lag * m < 200]
        send(bench, *[(frame, m, n) for frame, m in images for n in range(N_PACKETS)])
        await asyncio.sleep(0.01)
    found = await bench.when(lambda s: "module 1 is " in s.health.warning, timeout_s=60)
    assert "images behind the others" in found.health.warning
    await bench.stop()
    assert "module 1 is " in caplog.text
    assert bench.counters().id_restarts == restarts
    with h5py.File(path) as file:
        ids = file["entry/data/image_id"][:].tolist()
    assert len(set(ids)) == len(ids) == 199
