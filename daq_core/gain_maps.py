"""Jungfrau: the maps of gain and pedestal that ``daq_core.conversion`` converts with.

They are read once a config, put where the modules are in the image, and kept in
shared memory for the writers of its runs.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from daq_core.detectors.jungfrau import COLUMNS, ROWS
from daq_core.detectors.sls import pixel_numbers
from daq_core.errors import InvalidConfig

if TYPE_CHECKING:
    from daq_core.config import DaqConfig
    from daq_core.detectors import Layout

STAGES = 3

Maps = npt.NDArray[np.float32]
"""(2, STAGES, pixels of the image) float32: pedestals, then gains; 0 in gaps."""


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
        first = int(here.first_row) * COLUMNS
        part = slice(first, first + len(pixels))
        for stage in range(STAGES):
            maps[0, stage, pixels] = pedestals[stage, here.module].reshape(-1)[part]
            maps[1, stage, pixels] = gains[stage, here.module].reshape(-1)[part]
    return descriptor


def maps_bytes(n_pixels: int) -> int:
    return 2 * STAGES * n_pixels * 4


def attach_maps(descriptor: int, n_pixels: int) -> Maps:
    """Map what :func:`create_maps` made."""
    memory = mmap.mmap(descriptor, maps_bytes(n_pixels), mmap.MAP_SHARED)
    return np.frombuffer(memory, np.float32).reshape(2, STAGES, n_pixels)


def _read(path: str, dataset: str, config: DaqConfig) -> npt.NDArray[np.float32]:
    """Read a map of all modules, (stages, modules, rows, columns)."""
    expected = (STAGES, config.n_modules, ROWS, COLUMNS)
    import h5py  # as long to load as two faces; without conversion, control needs none of it

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
