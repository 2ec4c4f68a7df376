"""Each kind of detector, from what it sends to the file, one after the other in the same service."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import pytest_asyncio

from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK, free_ports
from tests.daq.filled_sockets import send_to_sockets
from tests.daq.loopback import Bench, assert_holds, jungfrau, loopback_daq, standing_still

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHANGE_LIMIT_S = 5.0
EIGER = {
    "detector_type": "eiger",
    "image_pixel_height": 260,
    "image_pixel_width": 1030,
    "n_modules": 2,
    "module_positions": {"0": [0, 0, 513, 255], "1": [1029, 259, 516, 4]},
}
JUNGFRAU = {
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "image_pixel_height": 80,
    "image_pixel_width": 1024,
    "n_modules": 2,
    "module_positions": {"0": [0, 0, 1023, 63], "1": [1023, 79, 0, 64]},
}
GIGAFROST = {
    "detector_type": "gigafrost",
    "bit_depth": 16,
    "image_pixel_height": 132,
    "image_pixel_width": 504,
    "n_modules": 8,
    "module_positions": {},
}
MOENCH = {
    "detector_type": "moench",
    "bit_depth": 16,
    "image_pixel_height": 400,
    "image_pixel_width": 400,
    "n_modules": 1,
    "module_positions": {"0": [0, 399, 399, 0]},
}
BSREAD = {
    "detector_type": "bsread",
    "bit_depth": 16,
    "image_pixel_height": 35,
    "image_pixel_width": 51,
    "n_modules": 1,
    "module_positions": {},
}
DETECTORS: dict[str, dict[str, Any]] = {
    **{f"eiger-{depth}": EIGER | {"bit_depth": depth} for depth in (4, 8, 12, 16, 32)},
    "gigafrost": GIGAFROST,
    "jungfrau": JUNGFRAU,
    "gigafrost, 16 ports": GIGAFROST | {"n_udp_ports": 16},
    "jungfrau, two interfaces": JUNGFRAU | {"n_udp_interfaces": 2},
    "moench": MOENCH,
    "bsread": BSREAD,
}
TYPES = ("eiger-16", "gigafrost", "jungfrau", "bsread")
EVERY_CHANGE = [*itertools.chain.from_iterable(itertools.combinations(TYPES, 2)), TYPES[0]]
"""A way through the types that takes each step from one to another once."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(), tmp_path_factory.mktemp("detectors")) as bench:
        yield bench


async def change_to(bench: Bench, detector: dict[str, Any]) -> None:
    """Take up another detector, on ports that are free, in less time than is promised."""
    defaults: dict[str, Any] = {"n_udp_ports": 8, "n_udp_interfaces": 1}
    defaults["start_udp_port"] = free_ports(16, socket.SOCK_DGRAM)
    defaults["stream_addresses"] = [f"tcp://{LOOPBACK}:{free_ports()}"]
    began = time.monotonic()
    await bench.daq.configure(defaults | detector)
    await bench.daq.reconfigured()
    assert time.monotonic() - began < CHANGE_LIMIT_S


def assert_holds_in_order(path: Path, simulator: Simulator, ids: list[int]) -> None:
    """Demand that a file holds these images; where even and odd ones have their own ports, in some order.

    Those ports are read one after the other, so of what has gathered one half comes first.
    """
    if simulator.layout.turns > 1:
        with h5py.File(path) as file:
            found = file["entry/data/image_id"][:].tolist()
        assert sorted(found) == ids
        ids = found
    assert_holds(path, simulator, ids)


@pytest.mark.parametrize("kind", DETECTORS)
async def test_a_service_that_is_changed_to_a_detector_takes_its_images_exactly(
    kind: str, bench: Bench
) -> None:
    await change_to(bench, DETECTORS[kind])
    path, ids = await bench.start(8), bench.next_ids(8)
    await bench.send(ids)
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds_in_order(path, bench.simulator, ids)


async def test_any_type_can_follow_any_other(bench: Bench) -> None:
    assert set(itertools.pairwise(EVERY_CHANGE)) == set(itertools.permutations(TYPES, 2))
    for kind in EVERY_CHANGE:
        await change_to(bench, DETECTORS[kind])
        await bench.perfect_run(2)


async def test_a_gigafrost_as_other_senders_cut_it_is_written_exactly(bench: Bench) -> None:
    await change_to(bench, GIGAFROST)
    simulator = Simulator(bench.daq.snapshot.config, rows_per_packet=19)
    path, ids = await bench.start(5), bench.next_ids(5)
    await asyncio.to_thread(simulator.send, 5, 50, first_id=ids[0])
    await bench.end()
    assert_holds(path, simulator, ids)


async def test_images_that_a_gigafrost_marks_are_left_out_of_the_file_and_no_loss(bench: Bench) -> None:
    await change_to(bench, GIGAFROST | {"n_udp_ports": 16})
    path, ids = await bench.start(5), bench.next_ids(7)
    unwanted = {ids[1], ids[4]}
    simulator = Simulator(bench.daq.snapshot.config, unwanted=unwanted)
    await asyncio.to_thread(simulator.send, 7, 50, first_id=ids[0])
    status = await bench.end()
    assert (status.acquisition.message, status.acquisition.n_write_completed) == ("Completed.", 5)
    assert_holds_in_order(path, simulator, [i for i in ids if i not in unwanted])
    assert bench.daq.snapshot.losses.dropped_images == 0


@pytest.mark.parametrize("n_udp_ports", [8, 16])
async def test_a_backlog_of_frames_of_one_packet_loses_nothing(bench: Bench, n_udp_ports: int) -> None:
    """Ports are read in turn: one that has much waiting must not push out what the next ones complete."""
    small = GIGAFROST | {"image_pixel_height": 8, "image_pixel_width": 72, "n_udp_ports": n_udp_ports}
    await change_to(bench, small)
    path, ids = await bench.start(100), bench.next_ids(100)
    with standing_still([bench.receiver]):
        await send_to_sockets(bench, ids, 2000)
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds_in_order(path, bench.simulator, ids)
    assert bench.counters().id_restarts == 0
