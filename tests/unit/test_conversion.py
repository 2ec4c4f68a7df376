"""Jungfrau conversion: every pixel by its own gain stage, pedestal and gain, or a clear refusal."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.errors import InvalidConfig
from daq_core.ring.ring import COMPLETE, INCOMPLETE
from daq_core.writing.conversion import Converter, convert
from daq_core.writing.gain_maps import attach_maps, create_maps
from daq_core.writing.map_files import fill_maps

ROWS, COLUMNS = 512, 1024
MODULES = 2


def converted_pixel(raw: int, pedestals: list[float], gains: list[float]) -> float:
    """The formula for one pixel, in words: stage by the top bits, 11 is the third, 10 does not exist."""
    stage = {0b00: 0, 0b01: 1, 0b11: 2}.get(raw >> 14)
    if stage is None:
        return float("nan")
    value = np.float32(raw & 0x3FFF) - np.float32(pedestals[stage])
    return float(value * np.float32(gains[stage]))


@pytest.mark.kernels
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


Change = Callable[[npt.NDArray[np.float32]], None]


def with_gains(
    calibration: dict[str, Any], folder: Path, change: Change, dataset: str = "gains"
) -> DaqConfig:
    """A config with another gain (or pedestal) file, changed from the good one."""
    maps = calibration[dataset].astype(np.float64)
    change(maps)
    path = folder / f"changed-{dataset}.h5"
    with h5py.File(path, "w") as file:
        file[dataset] = maps
    return config(calibration, **{f"{dataset[:-1]}_file": str(path)})


def fill(*at: object, value: float) -> Change:
    def change(maps: npt.NDArray[np.float32]) -> None:
        maps[at] = value

    return change


@pytest.mark.parametrize(
    ("dataset", "change", "remark"),
    [
        ("gains", fill(0, 1, 2, slice(0, 7), value=np.nan), "7 of 3145728 values are no numbers"),
        ("gains", fill(2, value=np.nan), "1048576 of 3145728 values are no numbers"),
        ("gains", fill(1, 0, 0, 0, value=np.inf), "1 of 3145728 values are no numbers"),
        ("gains", fill(1, 0, 0, 0, value=1e300), "1 of 3145728 values are no numbers"),
        ("gains", fill(2, 1, 5, slice(0, 3), value=0), "3 of 3145728 values are 0"),
        ("pedestals", fill(0, 0, 0, slice(0, 9), value=np.nan), "9 of 3145728 values are no numbers"),
        ("pedestals", fill(1, 0, value=0), "all are 0 in stage 1 of module 0"),
        (
            "pedestals",
            fill(value=0),
            "all are 0 in stage 0 of module 0, stage 0 of module 1, stage 1 of module 0 and 3",
        ),
    ],
)
def test_maps_that_make_pixels_worth_a_look_are_a_warning_with_counts(
    calibration: dict[str, Any], tmp_path: Path, dataset: str, change: Change, remark: str
) -> None:
    changed = with_gains(calibration, tmp_path, change, dataset)
    height, width = layout_of(changed).image_shape
    maps = np.zeros((2, 3, height * width), np.float32)
    found = fill_maps(changed, maps)
    assert remark in found
    assert f"/{dataset} in {tmp_path}/changed-{dataset}.h5" in found
    assert ("gains" if dataset == "pedestals" else "pedestals") not in found


def test_good_maps_are_no_warning(calibration: dict[str, Any]) -> None:
    maps = np.zeros((2, 3, 2 * ROWS * COLUMNS), np.float32)
    assert fill_maps(config(calibration), maps) == ""


def test_what_is_wrong_in_a_module_that_is_left_out_does_not_matter(
    calibration: dict[str, Any], tmp_path: Path
) -> None:
    changed = with_gains(calibration, tmp_path, fill(slice(None), 1, value=0))
    one = changed.merge({"image_pixel_height": ROWS, "module_positions": {"0": [0, 0, 1023, 511]}})
    assert fill_maps(one, np.zeros((2, 3, ROWS * COLUMNS), np.float32)) == ""


@pytest.mark.parametrize(
    ("dataset", "change", "reason"),
    [
        ("gains", fill(1, value=0), "is 0 in all pixels of stage 1 of module 0, stage 1 of module 1: every"),
        ("gains", fill(2, 1, value=0), "is 0 in all pixels of stage 2 of module 1: every"),
        ("gains", fill(value=np.nan), "has no number for any pixel"),
        ("pedestals", fill(value=np.inf), "has no number for any pixel"),
    ],
)
def test_maps_that_make_no_pixels_are_refused(
    calibration: dict[str, Any], maps_of: Any, tmp_path: Path, dataset: str, change: Change, reason: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        maps_of(with_gains(calibration, tmp_path, change, dataset))
    assert f"/{dataset} in {tmp_path}/changed-{dataset}.h5 {reason}" in str(refused.value)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _listening_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def _link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the name of the socket is what is tested
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_fifo, "a pipe"),
        (_listening_socket, "a socket"),
        (_link_to_zeros, "a device"),
        (Path.mkdir, "a folder"),
    ],
)
def test_only_a_regular_file_is_opened_and_nobody_is_waited_for(
    calibration: dict[str, Any], maps_of: Any, tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / "gains.h5")
    with pytest.raises(InvalidConfig, match=rf"gains\.h5 cannot be read: it is {kind}, not a regular file"):
        maps_of(config(calibration, gain_file=str(tmp_path / "gains.h5")))


def test_a_file_that_another_process_keeps_to_itself_is_not_waited_for(
    calibration: dict[str, Any], maps_of: Any, tmp_path: Path
) -> None:
    """Who has a lease on a file may keep others waiting for 45 s."""
    path = tmp_path / "gains.h5"
    shutil.copy(calibration["folder"] / "gains.h5", path)
    holder = subprocess.Popen(
        [sys.executable, "-c", LEASE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(
            InvalidConfig, match=r"gains\.h5 cannot be read: another process has a lease on it"
        ):
            maps_of(config(calibration, gain_file=str(path)))
        holder.communicate()


LEASE = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "r+b")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_driver_that_the_environment_names_is_not_that_of_the_files(
    calibration: dict[str, Any], maps_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDF5_DRIVER", "core")
    maps_of(config(calibration))


@pytest.mark.parametrize("key", ["gain_file", "pedestal_file"])
@pytest.mark.parametrize("path", ["gains.h5", "./gains.h5", "~/gains.h5", "/a\0b", "/a\nb"])
def test_a_path_that_is_not_absolute_or_has_control_characters_is_refused(
    calibration: dict[str, Any], key: str, path: str
) -> None:
    with pytest.raises(InvalidConfig, match=f"{key}: must be an absolute path"):
        config(calibration, **{key: path})


def test_conversion_needs_both_files(calibration: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="both gain_file and pedestal_file, got gain_file"):
        config(calibration, pedestal_file="")
    with pytest.raises(InvalidConfig, match="both gain_file and pedestal_file"):
        config(calibration, detector_type="jungfrau-converted", gain_file="", pedestal_file="")


def test_raw_stays_raw_whatever_files_are_given(calibration: dict[str, Any]) -> None:
    assert layout_of(config(calibration, detector_type="jungfrau-raw")).dtype == np.uint16
    assert layout_of(config(calibration)).dtype == np.float32
