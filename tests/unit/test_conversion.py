"""Jungfrau conversion: every pixel by its own gain stage, pedestal and gain, or a clear refusal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.conversion import Converter, convert
from daq_core.detectors import layout_of
from daq_core.errors import InvalidConfig
from daq_core.gain_maps import attach_maps, create_maps, fill_maps
from daq_core.ring import COMPLETE, INCOMPLETE

ROWS, COLUMNS = 512, 1024
MODULES = 2


def converted_pixel(raw: int, pedestals: list[float], gains: list[float]) -> float:
    """The formula for one pixel, in words: stage by the top bits, 11 is the third, 10 does not exist."""
    stage = {0b00: 0, 0b01: 1, 0b11: 2}.get(raw >> 14)
    if stage is None:
        return float("nan")
    value = np.float32(raw & 0x3FFF) - np.float32(pedestals[stage])
    return float(value * np.float32(gains[stage]))


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32)), min_size=1, max_size=50))
def test_each_pixel_is_converted_by_its_own_stage(pixels: list[tuple[int, int]]) -> None:
    raw = np.array([value for value, _ in pixels], np.uint16)
    random = np.random.default_rng(pixels[0][1])
    maps = random.uniform(-10, 10, (2, 3, len(raw))).astype(np.float32)
    slots = np.zeros((3, 2 * len(raw) + 2), np.uint8)
    slots[2, : 2 * len(raw)] = raw.view(np.uint8)
    converted = np.empty((2, len(raw)), np.float32)

    n_invalid = convert(slots, np.array([1, 2]), maps, converted)

    expected = [
        converted_pixel(int(r), maps[0, :, i].tolist(), maps[1, :, i].tolist()) for i, r in enumerate(raw)
    ]
    np.testing.assert_array_equal(converted[1], np.array(expected, np.float32))
    assert n_invalid == np.count_nonzero(raw >> 14 == 2)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("calibration")
    random = np.random.default_rng(7)
    gains = random.uniform(0.5, 2, (3, MODULES, ROWS, COLUMNS)).astype(np.float32)
    pedestals = random.uniform(0, 500, gains.shape).astype(np.float32)
    with h5py.File(folder / "gains.h5", "w") as file:
        file["gains"] = gains.astype(np.float64)
    with h5py.File(folder / "pedestals.h5", "w") as file:
        file["pedestals"] = pedestals.astype(np.float64)
    return {"folder": folder, "gains": gains, "pedestals": pedestals}


def config(calibration: dict[str, Any], **changes: object) -> DaqConfig:
    folder = calibration["folder"]
    values: dict[str, object] = {
        "detector_name": "JF",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": 2 * ROWS,
        "image_pixel_width": COLUMNS,
        "n_modules": MODULES,
        "start_udp_port": 50000,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 1023, 511], "1": [1023, 1023, 0, 512]},  # the second one turned over
        "gain_file": str(folder / "gains.h5"),
        "pedestal_file": str(folder / "pedestals.h5"),
    }
    return DaqConfig.parse(values | changes)


@pytest.fixture
def maps_of() -> Iterator[Any]:
    descriptors = []

    def make(of: DaqConfig) -> int:
        height, width = layout_of(of).image_shape
        descriptors.append(create_maps(of))
        fill_maps(of, attach_maps(descriptors[-1], height * width))
        return descriptors[-1]

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


def in_image(maps: npt.NDArray[np.float32], rows: slice = slice(None)) -> npt.NDArray[np.float32]:
    """The maps of both modules as they lie in the image: the second module is flipped on both axes."""
    return np.concatenate([maps[:, 0, rows], maps[:, 1, rows][:, ::-1, ::-1]], axis=1)


def test_maps_lie_where_the_modules_are(calibration: dict[str, Any], maps_of: Any) -> None:
    maps = attach_maps(maps_of(config(calibration)), 2 * ROWS * COLUMNS)
    np.testing.assert_array_equal(maps[0].reshape(3, 2 * ROWS, COLUMNS), in_image(calibration["pedestals"]))
    np.testing.assert_array_equal(maps[1].reshape(3, 2 * ROWS, COLUMNS), in_image(calibration["gains"]))


@pytest.mark.parametrize("n_udp_interfaces", [1, 2])
def test_partial_readout_takes_the_centre_rows_of_the_maps(
    calibration: dict[str, Any], maps_of: Any, n_udp_interfaces: int
) -> None:
    partial = config(
        calibration,
        image_pixel_height=512,
        module_positions={"0": [0, 0, 1023, 255], "1": [1023, 511, 0, 256]},
        n_udp_interfaces=n_udp_interfaces,
    )
    maps = attach_maps(maps_of(partial), ROWS * COLUMNS)
    centre = slice(128, 384)
    np.testing.assert_array_equal(maps[1].reshape(3, ROWS, COLUMNS), in_image(calibration["gains"], centre))


def test_pixels_that_did_not_arrive_are_zero_after_conversion(
    calibration: dict[str, Any], maps_of: Any
) -> None:
    whole = config(calibration)
    layout = layout_of(whole)
    shape = layout.ring_shape(8)
    descriptor = shape.create()
    ring = shape.attach(descriptor)
    os.close(descriptor)
    ring.pixels[:2] = 1
    ring.marks[:2] = np.uint64(2**64 - 1)
    ring.slots["state"][0], ring.slots["state"][1] = COMPLETE, INCOMPLETE
    ring.marks[1, 0] &= ~np.uint64(1 << 5)  # module 0 lacks packet 5: rows 20..23
    converter = Converter(whole, maps_of(whole), 2)

    (complete, incomplete), _ = converter.convert(ring, np.array([0, 1]))

    assert complete.dtype == np.float32
    assert np.count_nonzero(incomplete[20:24]) == 0
    incomplete[20:24] = complete[20:24]
    np.testing.assert_array_equal(incomplete, complete)


def test_an_unreadable_file_is_refused_by_name(
    calibration: dict[str, Any], maps_of: Any, tmp_path: Path
) -> None:
    missing = config(calibration, gain_file=str(tmp_path / "nowhere.h5"))
    with pytest.raises(InvalidConfig, match=r"nowhere\.h5 cannot be read: No such file"):
        maps_of(missing)
    (tmp_path / "text.h5").write_text("not HDF5")
    text = config(calibration, pedestal_file=str(tmp_path / "text.h5"))
    with pytest.raises(InvalidConfig, match=r"text\.h5 cannot be read: not an HDF5 file"):
        maps_of(text)


def test_a_file_without_the_dataset_or_of_another_shape_is_refused(
    calibration: dict[str, Any], maps_of: Any, tmp_path: Path
) -> None:
    swapped = config(calibration, gain_file=str(calibration["folder"] / "pedestals.h5"))
    with pytest.raises(InvalidConfig, match="has no dataset /gains"):
        maps_of(swapped)
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["gains"] = calibration["gains"][:, :1]
    one = config(calibration, gain_file=str(tmp_path / "one.h5"))
    with pytest.raises(InvalidConfig, match=r"\(3, 1, 512, 1024\).*\(3, 2, 512, 1024\)"):
        maps_of(one)


def test_conversion_needs_both_files(calibration: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="both gain_file and pedestal_file, got gain_file"):
        config(calibration, pedestal_file="")
    with pytest.raises(InvalidConfig, match="both gain_file and pedestal_file"):
        config(calibration, detector_type="jungfrau-converted", gain_file="", pedestal_file="")


def test_raw_stays_raw_whatever_files_are_given(calibration: dict[str, Any]) -> None:
    assert layout_of(config(calibration, detector_type="jungfrau-raw")).dtype == np.uint16
    assert layout_of(config(calibration)).dtype == np.float32
