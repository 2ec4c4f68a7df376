"""What a detector sends over UDP is in the file, bit for bit: every format, every geometry, every order."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daq_core.assembling.placing import KERNELS
from daq_core.config import DaqConfig
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, assert_holds, eiger, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK: dict[str, Any] = {"image_timeout_s": 0.3}

FORMATS: dict[str, Callable[..., DaqConfig]] = {
    "jungfrau": jungfrau,
    "eiger8": lambda *args, **kwargs: eiger(8, *args, **kwargs),
    "eiger16": lambda *args, **kwargs: eiger(16, *args, **kwargs),
    "eiger32": lambda *args, **kwargs: eiger(32, *args, **kwargs),
}

GEOMETRIES: dict[int, dict[str, Any]] = {
    1: {},
    2: {"gap": 3},
    4: {"gap": 2, "flips": ("", "x", "y", "xy")},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(2, rows=16, **QUICK), tmp_path_factory.mktemp("images")) as bench:
        yield bench


@pytest.mark.parametrize("n_modules", [1, 2, 4])
@pytest.mark.parametrize("name", FORMATS)
async def test_every_pixel_of_every_image_is_in_the_file(
    module_bench: Bench, name: str, n_modules: int
) -> None:
    """One module fills its image; two have gaps; of four, each is flipped in another way."""
    bench = module_bench
    config = FORMATS[name](n_modules, **GEOMETRIES[n_modules])
    await bench.daq.configure(config.as_dict() | QUICK)
    await bench.daq.reconfigured()
    await bench.perfect_run(12)


# What happens to the packets of a run: how far they are moved, which are lost, which come twice.
MISHAPS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "n_images": st.integers(1, 8),
        "displacement": st.sampled_from([0, 3, 30]),  # packets; an image has 8
        "loss": st.sampled_from([0.0, 0.02, 0.3]),
        "duplication": st.sampled_from([0.0, 0.1, 0.5]),
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_bench(module_bench: Bench) -> Bench:
    """Two modules of 16 rows: images of 8 packets. Each port has shown a whole one already.

    A receiver may have begun within the first that it sees, if not with its first packet.
    """
    await module_bench.daq.configure(jungfrau(2, rows=16, gap=1, flips=("x", "y")).as_dict() | QUICK)
    await module_bench.daq.reconfigured()
    await module_bench.perfect_run(1)
    return module_bench


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mishaps=MISHAPS)
async def test_whatever_order_loss_and_duplication_do_the_file_tells_the_truth(
    small_bench: Bench, mishaps: dict[str, Any]
) -> None:
    bench, fate = small_bench, random.Random(mishaps["seed"])
    ids = bench.next_ids(mishaps["n_images"])
    sent = Packets(bench.simulator, ids)
    arriving = [name for name in sent.datagrams if fate.random() >= mishaps["loss"]]
    lost = [name for name in sent.datagrams if name not in set(arriving)]
    kept = {image_id for image_id, _, _ in arriving}
    twice = [name for name in arriving if fate.random() < mishaps["duplication"]]
    before = bench.counters()

    path = await bench.start(len(ids))
    sent.send(with_copies(displaced(arriving, mishaps["displacement"], fate), set(twice)))
    if len(kept) < len(ids):  # of an image that lost all its packets nobody can know
        await bench.until_written(len(kept))
        await bench.stop()
    await bench.end()
    after = await bench.counted(before.packets_received + len(arriving) + len(twice))

    lost = [name for name in lost if name[0] in kept]
    n_missing = Counter(image_id for image_id, _, _ in lost)
    order = image_ids(path)  # of images that overlap, the receiver decides
    assert sorted(order) == sorted(kept)
    assert_holds(
        path,
        bench.simulator,
        order,
        lost={i: sent.pixels(name for name in lost if name[0] == i) for i in n_missing},
        n_missing=n_missing,
    )
    losses = bench.daq.snapshot.losses
    assert (losses.missing_packets, losses.incomplete_images) == (len(lost), len(n_missing))
    assert after.packets_placed - before.packets_placed == len(arriving)
    assert after.missing_packets - before.missing_packets == len(lost)
    repeated = after.packets_duplicate + after.packets_late - before.packets_duplicate - before.packets_late
    assert repeated == len(twice)


Name = tuple[int, int, int]
"""Of a packet: image id, index of its port, place among that port's packets."""


class Packets:
    """The packets of some images, by name, to be sent in any order."""

    def __init__(self, simulator: Simulator, ids: Iterable[int]) -> None:
        self._simulator = simulator
        self.datagrams: dict[Name, bytes] = {
            (image_id, port, number): datagram.tobytes()
            for image_id in ids
            for port, datagrams in enumerate(simulator.packets(image_id))
            for number, datagram in enumerate(datagrams)
        }

    def send(self, names: Iterable[Name]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for name in names:
                sender.sendto(self.datagrams[name], (LOOPBACK, self._simulator.ports[name[1]]))

    def pixels(self, names: Iterable[Name]) -> npt.NDArray[np.bool_]:
        """Return (H, W) bool: the pixels that these packets carry."""
        layout = self._simulator.layout
        pixels = np.ones(layout.image_shape, layout.dtype)
        for _, port, number in names:
            KERNELS["sls"].erase(layout.ports, port, number, pixels.view(np.uint8).reshape(-1))
        return np.equal(pixels, 0)


def displaced(names: list[Name], most: int, fate: random.Random) -> list[Name]:
    """Return the packets in an order in which each moved by at most so many places."""
    where = {name: place + fate.uniform(0, most) for place, name in enumerate(names)}
    return sorted(names, key=lambda name: where[name])


def with_copies(names: list[Name], twice: set[Name]) -> list[Name]:
    """Return the packets, some of them twice: once more right behind, as networks repeat them.

    Half of all packets once more in their order, behind the last, are a detector that was armed again.
    """
    return [name for one in names for name in ([one, one] if one in twice else [one])]


def image_ids(path: Path) -> list[int]:
    with h5py.File(path) as file:
        return [int(image_id) for image_id in file["entry/data/image_id"][:]]
