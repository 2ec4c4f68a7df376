"""Jungfrau: the maps of gain and pedestal that ``daq_core.writing.conversion`` converts with.

They are read once a config, put where the modules are in the image, and kept in
shared memory for the writers of its runs. A process of its own reads them
(``daq_core.writing.map_files``): control has no HDF5, and does not wait for a disk that hangs.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig
from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import MAPS
from daq_core.processes.question import ask
from daq_core.writing.task import MapsRead, MapsTask

STAGES = 3
COMPARED = 2**20  # bytes at a time
TIMEOUT_S = 30.0  # for a file system to deliver the maps of many modules, 25 MB each in double precision

Maps = npt.NDArray[np.float32]
"""(2, STAGES, pixels of the image) float32: pedestals, then gains; 0 in gaps."""


async def load_maps(forks: ForkServer, config: DaqConfig) -> int:
    """Have the config's gain and pedestal files read into a memfd of Maps; returns its descriptor.

    What is worth a warning of them follows the maps: :func:`remarks_on`.

    Raises
    ------
    InvalidConfig
        A file cannot be read or does not answer, or its dataset has another shape; the text says which.
    Unavailable
        No process could be started to read them.
    """
    descriptor = create_maps(config)
    try:
        found = await ask(forks, MAPS, MapsTask(config.as_dict()), MapsRead, TIMEOUT_S, descriptor)
        if found.trouble:
            raise InvalidConfig(found.trouble)
        os.pwrite(descriptor, found.remarks.encode(), maps_bytes(n_pixels(config)))
    except TimeoutError:
        os.close(descriptor)
        raise InvalidConfig(
            f"Config errors: {config.gain_file} and {config.pedestal_file} cannot be read: their "
            f"file system did not answer within {TIMEOUT_S:g} s."
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def create_maps(config: DaqConfig) -> int:
    """Make a memfd for the Maps of a config, all 0; returns its descriptor."""
    descriptor = os.memfd_create("std-daq-maps", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, maps_bytes(n_pixels(config)))
    return descriptor


def remarks_on(descriptor: int, config: DaqConfig) -> str:
    """Return what is worth a warning of the maps of a config, "" for nothing."""
    end = maps_bytes(n_pixels(config))
    return os.pread(descriptor, os.fstat(descriptor).st_size - end, end).decode()


def n_pixels(config: DaqConfig) -> int:
    """Return the pixels of a config's image."""
    height, width = config.layout.image_shape
    return height * width


def maps_bytes(n: int) -> int:
    return 2 * STAGES * n * 4


def attach_maps(descriptor: int, n: int) -> Maps:
    """Map what :func:`create_maps` made, for images of so many pixels."""
    memory = mmap.mmap(descriptor, maps_bytes(n), mmap.MAP_SHARED)
    return np.frombuffer(memory, np.float32).reshape(2, STAGES, n)


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
