"""Several receive threads share the ports: the files are those of one thread, in every format and mishap."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daq_core.state.receive_threads import ReceiveThreads
from tests.daq.loopback import Bench, assert_holds, eiger, jungfrau, loopback_daq
from tests.property.geometries import gigafrost
from tests.system.test_daq_images import Packets, displaced, image_ids

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = {"image_timeout_s": 0.3}
FOUR = jungfrau(4, rows=64, gap=2, flips=("", "x", "y", "xy"), **QUICK)
CONFIGS = {
    "four modules": FOUR,
    "one module, more threads than ports": jungfrau(1, rows=64),
    "eiger of 12 bit": eiger(12, 2, gap=1, flips=("", "xy")),
    "gigafrost on 16 ports": gigafrost(image_pixel_height=132, image_pixel_width=504, n_udp_ports=16),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[2, 4])
async def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    threads = ReceiveThreads(request.param)
    async with loopback_daq(FOUR, tmp_path_factory.mktemp("threads"), receive_threads=threads) as bench:
        yield bench


@pytest.mark.parametrize("name", CONFIGS)
async def test_every_pixel_of_every_image_is_in_the_file(bench: Bench, name: str) -> None:
    ports = {"start_udp_port": bench.daq.snapshot.config.start_udp_port}
    await bench.daq.configure(CONFIGS[name].as_dict() | QUICK | ports)
    await bench.daq.reconfigured()
    for _ in range(3):
        path, ids = await bench.start(40), bench.next_ids(40)
        await bench.send(ids)
        assert (await bench.end()).acquisition.message == "Completed."
        order = image_ids(path)  # of images that overlap, the receiver decides
        assert sorted(order) == ids
        assert_holds(path, bench.simulator, order)


async def test_loss_and_reordering_are_told_as_by_one_thread(bench: Bench) -> None:
    await bench.daq.configure(FOUR.as_dict())
    await bench.daq.reconfigured()
    await bench.perfect_run(5)  # a port that has shown nothing yet may have been opened within a frame
    for seed in range(6):
        fate = random.Random(seed)
        ids = bench.next_ids(20)
        sent = Packets(bench.simulator, ids)
        arriving = [name for name in sent.datagrams if fate.random() >= 0.02]
        lost = [name for name in sent.datagrams if name not in set(arriving)]
        twice = [name for name in arriving if fate.random() < 0.02]
        path = await bench.start(len(ids))
        sent.send(displaced(arriving, 40, fate) + twice)
        await bench.end()
        n_missing = Counter(image_id for image_id, _, _ in lost)
        order = image_ids(path)  # of images that overlap, the receiver decides
        assert sorted(order) == ids
        pixels = {i: sent.pixels(name for name in lost if name[0] == i) for i in n_missing}
        assert_holds(path, bench.simulator, order, lost=pixels, n_missing=n_missing)


async def test_threads_stay_on_the_cpus_that_were_named(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    threads = ReceiveThreads(2, (cpu,))
    async with loopback_daq(jungfrau(2, rows=16), tmp_path, receive_threads=threads) as bench:
        await bench.perfect_run(5)
        tasks = map(int, os.listdir(f"/proc/{bench.receiver}/task"))
        assert sum(os.sched_getaffinity(task) == {cpu} for task in tasks) >= 2
