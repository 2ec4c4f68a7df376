"""Jungfrau: the maps of gain and pedestal that ``daq_core.conversion`` converts with.

They are read once a config, put where the modules are in the image, and kept in
shared memory for the writers of its runs. A process of its own reads them
(``daq_core.question``): control has no HDF5, and does not wait for a disk that hangs.
"""

from __future__ import annotations

import mmap
import os
import socket
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.detectors.jungfrau import COLUMNS, ROWS
from daq_core.detectors.sls import pixel_numbers
from daq_core.errors import InvalidConfig
from daq_core.fork_server import MAPS
from daq_core.forks import ForkServer
from daq_core.question import answer, ask

STAGES = 3
COMPARED = 2**20  # bytes at a time
TIMEOUT_S = 30.0  # for a file system to deliver the maps of many modules, 25 MB each in double precision

Maps = npt.NDArray[np.float32]
"""(2, STAGES, pixels of the image) float32: pedestals, then gains; 0 in gaps."""


async def load_maps(forks: ForkServer, config: DaqConfig) -> int:
    """Have the config's gain and pedestal files read into a memfd of Maps; returns its descriptor.

    Raises
    ------
    InvalidConfig
        A file cannot be read or does not answer, or its dataset has another shape; the text says which.
    Unavailable
        No process could be started to read them.
    """
    descriptor = create_maps(config)
    try:
        found = await ask(forks, MAPS, {"config": config.as_dict()}, TIMEOUT_S, descriptor)
        if found["trouble"]:
            raise InvalidConfig(found["trouble"])
    except TimeoutError:
        os.close(descriptor)
        raise InvalidConfig(
            f"Config errors: {config.gain_file} and {config.pedestal_file} cannot be read: their "
            f"file system did not answer within {TIMEOUT_S:.0f} s."
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def run_maps(channel: socket.socket, descriptor: int) -> None:
    """Fill the maps of one config, in a process of its own that is forked for it."""

    def fill(question: dict[str, Any]) -> dict[str, str]:
        config = DaqConfig.parse(question["config"])
        try:
            fill_maps(config, attach_maps(descriptor, _n_pixels(config)))
        except InvalidConfig as refused:
            return {"trouble": str(refused)}
        return {"trouble": ""}

    answer(channel, fill)


def create_maps(config: DaqConfig) -> int:
    """Make a memfd for the Maps of a config, all 0; returns its descriptor."""
    descriptor = os.memfd_create("std-daq-maps", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, maps_bytes(_n_pixels(config)))
    return descriptor


def fill_maps(config: DaqConfig, maps: Maps) -> None:
    """Read the config's gain and pedestal files, each module's part to where the module is in the image.

    Raises
    ------
    InvalidConfig
        A file cannot be read, or its dataset has another shape; the text names file, dataset and shapes.
    """
    pedestals = _read(config.pedestal_file, "pedestals", config)
    gains = _read(config.gain_file, "gains", config)
    for here in layout_of(config).ports:
        pixels = pixel_numbers(here)
        first = int(here.first_row) * COLUMNS
        part = slice(first, first + len(pixels))
        for stage in range(STAGES):
            maps[0, stage, pixels] = pedestals[stage, here.module].reshape(-1)[part]
            maps[1, stage, pixels] = gains[stage, here.module].reshape(-1)[part]


def _n_pixels(config: DaqConfig) -> int:
    height, width = layout_of(config).image_shape
    return height * width


def maps_bytes(n_pixels: int) -> int:
    return 2 * STAGES * n_pixels * 4


def attach_maps(descriptor: int, n_pixels: int) -> Maps:
    """Map what :func:`create_maps` made."""
    memory = mmap.mmap(descriptor, maps_bytes(n_pixels), mmap.MAP_SHARED)
    return np.frombuffer(memory, np.float32).reshape(2, STAGES, n_pixels)


def same_maps(one: int | None, other: int | None) -> bool:
    """Tell whether two descriptors of Maps hold the same bytes, or neither is there."""
    if one is None or other is None:
        return one is other
    at, n_bytes = 0, os.fstat(one).st_size
    while n_bytes == os.fstat(other).st_size and os.pread(one, COMPARED, at) == os.pread(other, COMPARED, at):
        at += COMPARED
        if at >= n_bytes:
            return True
    return False


def _read(path: str, dataset: str, config: DaqConfig) -> npt.NDArray[np.float32]:
    """Read a map of all modules, (stages, modules, rows, columns)."""
    expected = (STAGES, config.n_modules, ROWS, COLUMNS)
    import h5py  # the process that reads has it already; control does without

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
