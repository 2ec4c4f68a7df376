"""A Jungfrau that is converted: raw datagrams in, float32 in the file, each pixel by its own gain stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from daq_core.detectors import format_of, layout_of
from daq_core.errors import InvalidConfig
from daq_core.simulating.sender import Burst, Sender
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODULES, ROWS = 2, 64
READ = slice(256 - ROWS // 2, 256 + ROWS // 2)  # the rows of a module that partial readout sends
POSITIONS = {"0": [0, 0, 1023, ROWS - 1], "1": [1023, 2 * ROWS - 1, 0, ROWS]}  # the second one turned over
PACKET_ROWS = 4
STAGE = np.array([0, 1, -1, 2])  # of the gain bits; 10 is none

Maps = npt.NDArray[np.float64]
Images = dict[int, npt.NDArray[np.uint16]]


class Calibration:
    """Gains and pedestals of whole modules, and the files that a config names."""

    def __init__(self, folder: Path) -> None:
        self.keys = {
            "gain_file": str(folder / "gains.h5"),
            "pedestal_file": str(folder / "pedestals.h5"),
        }
        self.renew(seed=1)

    def renew(self, seed: int) -> None:
        """Write other maps into the same files."""
        random = np.random.default_rng(seed)
        self.gains = random.uniform(0.5, 2, (3, MODULES, 512, 1024))
        self.pedestals = random.uniform(0, 500, self.gains.shape)
        for key, name, maps in (
            ("gain_file", "gains", self.gains),
            ("pedestal_file", "pedestals", self.pedestals),
        ):
            with h5py.File(self.keys[key], "w") as file:
                file[name] = maps

    def converted(self, raw: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """What must be in the file for a raw image, (H, W)."""
        stage = STAGE[raw >> 14]
        gain, pedestal = (
            np.take_along_axis(_in_image(maps), stage[None], axis=0)[0]
            for maps in (self.gains, self.pedestals)
        )
        value = (raw & 0x3FFF).astype(np.float32)
        return np.where(stage < 0, np.float32(np.nan), (value - pedestal) * gain)


def _in_image(maps: Maps) -> npt.NDArray[np.float32]:
    upright, turned = maps[:, 0, READ], maps[:, 1, READ][:, ::-1, ::-1]
    return np.concatenate([upright, turned], axis=1).astype(np.float32)


def random_images(ids: list[int]) -> Images:
    """Images of all 65536 values: every gain stage, and the one that does not exist."""
    return {
        i: np.random.default_rng(i).integers(0, 2**16, (MODULES * ROWS, 1024), np.uint16, endpoint=False)
        for i in ids
    }


def send(bench: Bench, images: Images, *, cut: int) -> None:
    """Send images over UDP, the one with id `cut` without the last packet of module 0."""
    config = bench.daq.snapshot.config
    layout, form = layout_of(config), format_of(config)
    bursts = []
    for image_id, image in images.items():
        packets = form.pack(image, layout, image_id)
        if image_id == cut:
            packets[0] = packets[0][:-1]
        bursts.append(Burst.of_packets(packets))
    with Sender(LOOPBACK, layout.udp_ports) as sender:
        sender.send(bursts, 50)


async def check_run(bench: Bench, calibration: Calibration) -> None:
    """Take a run, and demand that every pixel is converted, missing ones are 0, and the counts are right."""
    path, ids = await bench.start(4), bench.next_ids(4)
    images = random_images(ids)
    cut, lost = ids[1], slice(ROWS - PACKET_ROWS, ROWS)
    await asyncio.to_thread(send, bench, images, cut=cut)
    assert (await bench.end()).acquisition.message == "Completed."
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data["data"].dtype == np.float32
        assert data["image_id"][:].tolist() == ids
        assert data["missing_packets"][:].tolist() == [0, 1, 0, 0]
        for image_id, found in zip(ids, data["data"], strict=True):
            expected = calibration.converted(images[image_id])
            if image_id == cut:
                expected[lost] = 0
            np.testing.assert_array_equal(found, expected, err_msg=f"image {image_id}")
        n_invalid = int(file["entry/run/counters/invalid_pixels"][()])
    assert n_invalid == bench.daq.snapshot.losses.invalid_pixels
    arrived = sum(int(np.count_nonzero(image >> 14 == 2)) for image in images.values())
    missing = int(np.count_nonzero(images[cut][lost] >> 14 == 2))
    assert n_invalid == arrived - missing


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return Calibration(tmp_path_factory.mktemp("calibration"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    keys: dict[str, Any] = {**calibration.keys, "module_positions": POSITIONS}
    async with loopback_daq(jungfrau(MODULES, rows=ROWS, **keys), tmp_path_factory.mktemp("runs")) as bench:
        yield bench


async def test_every_pixel_of_the_file_is_converted_by_its_own_stage(
    bench: Bench, calibration: Calibration
) -> None:
    await check_run(bench, calibration)


async def test_converted_images_are_compressed_bit_by_bit(bench: Bench, calibration: Calibration) -> None:
    for compression in ("bitshuffle-lz4", "none"):
        await bench.daq.configure({"compression": compression})
        await bench.daq.reconfigured()
        await check_run(bench, calibration)


async def test_a_calibration_that_is_named_again_is_read_again(
    bench: Bench, calibration: Calibration
) -> None:
    calibration.renew(seed=2)
    await bench.daq.configure({"gain_file": calibration.keys["gain_file"]})
    await bench.daq.reconfigured()
    await check_run(bench, calibration)


async def test_a_calibration_that_is_named_again_unchanged_restarts_nothing(
    bench: Bench, calibration: Calibration
) -> None:
    receiver, config = bench.receiver, bench.daq.snapshot.config
    assert await bench.daq.configure(config.as_dict()) == config
    await bench.daq.reconfigured()
    assert bench.receiver == receiver
    await check_run(bench, calibration)


async def test_maps_worth_a_warning_are_used_and_warned_of_until_others_are_taken(
    bench: Bench, calibration: Calibration, tmp_path: Path
) -> None:
    holes = tmp_path / "holes.h5"
    with h5py.File(holes, "w") as file:
        file["gains"] = calibration.gains
        file["gains"][0, 0, 250, :5] = np.nan  # in a row that is read out
    await bench.daq.configure({"gain_file": str(holes)})
    await bench.daq.reconfigured()
    warning = "values are no numbers: such pixels become NaN"
    assert f"/gains in {holes}: 5 of " in bench.daq.snapshot.health.warning
    assert warning in bench.daq.snapshot.health.warning
    await bench.daq.configure({"gain_file": calibration.keys["gain_file"]})
    await bench.daq.reconfigured()
    assert warning not in bench.daq.snapshot.health.warning
    await check_run(bench, calibration)


async def test_a_calibration_that_cannot_be_used_is_refused_before_any_run(
    bench: Bench, calibration: Calibration
) -> None:
    before = bench.daq.snapshot.config
    for changes, reason in (
        ({"gain_file": "/nowhere/gains.h5"}, "cannot be read"),
        ({"gain_file": calibration.keys["pedestal_file"]}, "has no dataset /gains"),
        ({"pedestal_file": ""}, "both gain_file and pedestal_file"),
    ):
        with pytest.raises(InvalidConfig, match=reason):
            await bench.daq.configure(changes)
    assert bench.daq.snapshot.config is before
    await check_run(bench, calibration)
