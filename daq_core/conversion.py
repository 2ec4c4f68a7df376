"""Jungfrau: from raw pixels to float32, with the gain and pedestal of each pixel and gain stage.

The two top bits of a raw pixel tell the stage that was used: 00 G0, 01 G1, 11
G2; 10 does not occur in a working pixel, which becomes NaN and is counted. ::

    value = ((raw & 0x3FFF) - pedestal[stage]) * gain[stage]

The maps are read once a config, put where the modules are in the image, and kept
in shared memory for the writers of its runs.

Source: SLS detector documentation (gain bits); std_daq's converter (formula),
which took 11 for G0 and a single module's map for all.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.compiled import kernel_of
from daq_core.detectors import format_of, layout_of
from daq_core.detectors.sls import pixel_numbers
from daq_core.errors import InvalidConfig
from daq_core.ring import INCOMPLETE, Ring

if TYPE_CHECKING:
    from daq_core.config import DaqConfig
    from daq_core.detectors.format import Layout

STAGES = 3
MODULE_ROWS, MODULE_COLUMNS = 512, 1024
INVALID_STAGE = 2
VALUE_BITS = 14

Maps = npt.NDArray[np.float32]
"""(2, STAGES, pixels of the image) float32: pedestals, then gains; 0 in gaps."""


@kernel_of(types.int64(types.uint16[::1], types.float32[:, :, ::1], types.float32[::1]))
def convert(raw: Any, maps: Any, converted: Any) -> int:
    """Convert an image.

    Parameters
    ----------
    raw       : (pixels,) uint16
    maps      : (2, 3, pixels) float32, pedestals and gains
    converted : (pixels,) float32, filled

    Returns
    -------
    int  number of pixels in the gain stage that does not exist; they are NaN
    """
    n_invalid = 0
    for i in range(raw.shape[0]):
        stage = raw[i] >> np.uint16(VALUE_BITS)
        value = np.float32(raw[i] & np.uint16(2**VALUE_BITS - 1))
        if stage == INVALID_STAGE:
            converted[i] = np.float32(np.nan)
            n_invalid += 1
        else:
            stage = min(stage, np.uint16(2))  # 11 is the third stage
            converted[i] = (value - maps[0, stage, i]) * maps[1, stage, i]
    return n_invalid


def create_maps(config: DaqConfig, layout: Layout) -> int:
    """Read the config's gain and pedestal files into a memfd of Maps; returns its descriptor.

    Raises
    ------
    InvalidConfig
        A file cannot be read, or its dataset has another shape; the text names file, dataset and shapes.
    """
    pedestals = _read(config.pedestal_file, "pedestals", config)
    gains = _read(config.gain_file, "gains", config)
    n_pixels = layout.image_shape[0] * layout.image_shape[1]
    descriptor = os.memfd_create("std-daq-maps", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, maps_bytes(n_pixels))
    maps = attach_maps(descriptor, n_pixels)
    for here in layout.ports:
        pixels = pixel_numbers(here)
        first = int(here.first_row) * MODULE_COLUMNS
        part = slice(first, first + len(pixels))
        for stage in range(STAGES):
            maps[0, stage, pixels] = pedestals[stage, here.module].reshape(-1)[part]
            maps[1, stage, pixels] = gains[stage, here.module].reshape(-1)[part]
    return descriptor


class Converter:
    """Converts images of the ring into memory of its own, for a writer."""

    def __init__(self, config: DaqConfig, maps_descriptor: int, max_images: int) -> None:
        self._layout = layout_of(config)
        self._erase = format_of(config).erase
        self._ports = self._layout.ports.copy()
        self._ports["item_bytes"] = self._layout.dtype.itemsize
        self._n_pixels = self._layout.image_shape[0] * self._layout.image_shape[1]
        self._maps = attach_maps(maps_descriptor, self._n_pixels)
        self._converted = np.empty((max_images, self._n_pixels), np.float32)

    def convert(self, ring: Ring, slots: npt.NDArray[np.int64]) -> tuple[list[npt.NDArray[Any]], int]:
        """Return the converted images of some slots, (rows, columns) float32 each, and their invalid pixels.

        The memory is used again by the next call. Pixels that did not arrive are 0, as in raw images.
        """
        n_invalid = 0
        images = self._converted[: len(slots)]
        for slot, image in zip(slots, images, strict=True):
            raw = ring.pixels[slot, : self._n_pixels * 2].view(np.uint16)
            n_invalid += convert(raw, self._maps, image)
            if ring.slots["state"][slot] == INCOMPLETE:
                self._erase_missing(ring.marks[slot], image)
        return [image.reshape(self._layout.image_shape) for image in images], n_invalid

    def _erase_missing(self, marks: npt.NDArray[np.uint64], image: npt.NDArray[np.float32]) -> None:
        arrived = np.unpackbits(marks.view(np.uint8), bitorder="little")
        for port, here in enumerate(self._ports):
            first = int(here.first_unit)
            for unit in np.flatnonzero(arrived[first : first + int(here.n_units)] == 0):
                self._erase(self._ports, port, int(unit), image.view(np.uint8))


def maps_bytes(n_pixels: int) -> int:
    return 2 * STAGES * n_pixels * 4


def attach_maps(descriptor: int, n_pixels: int) -> Maps:
    """Map what :func:`create_maps` made."""
    memory = mmap.mmap(descriptor, maps_bytes(n_pixels), mmap.MAP_SHARED)
    return np.frombuffer(memory, np.float32).reshape(2, STAGES, n_pixels)


def _read(path: str, dataset: str, config: DaqConfig) -> npt.NDArray[np.float32]:
    """Read a map of all modules, (stages, modules, rows, columns)."""
    expected = (STAGES, config.n_modules, MODULE_ROWS, MODULE_COLUMNS)
    try:
        with h5py.File(path) as file:
            if dataset not in file:
                raise InvalidConfig(f"Config errors: {path} has no dataset /{dataset}.")
            found = file[dataset]
            if (
                not isinstance(found, h5py.Dataset)
                or found.shape != expected
                or found.dtype.kind not in "fiu"
            ):
                raise InvalidConfig(
                    f"Config errors: /{dataset} in {path} is {getattr(found, 'shape', 'a group')}, but "
                    f"numbers of the shape {expected} are needed (gain stages, modules, rows, columns)."
                )
            return np.asarray(found[()], np.float32)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "not an HDF5 file"
        raise InvalidConfig(f"Config errors: {path} cannot be read: {reason}.") from None
