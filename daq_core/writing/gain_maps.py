"""Jungfrau: the maps of gain and pedestal that ``daq_core.writing.conversion`` converts with.

They are read once a config, put where the modules are in the image, and kept in
shared memory for the writers of its runs. A process of its own reads them
(``daq_core.processes.question``): control has no HDF5, and does not wait for a disk that hangs.

What is in them is judged by what a pixel would become. A gain of 0 makes each value 0, which
nobody would see: a whole stage of a module of that is refused. What is no number (NaN) makes
pixels NaN, which shows, and is the way to say that there is no calibration. That, pixels without gain
and stages without pedestal are counted, and a warning as long as these maps are used.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections import Counter

import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.detectors.jungfrau import COLUMNS, ROWS
from daq_core.detectors.sls import pixel_numbers
from daq_core.errors import InvalidConfig
from daq_core.linux.regular_file import NotAFileError, opened_regular
from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import MAPS
from daq_core.processes.question import answer, ask
from daq_core.writing.task import MapsRead, MapsTask

STAGES = 3
SHOWN = 3  # stages that a message names
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
        os.pwrite(descriptor, found.remarks.encode(), maps_bytes(_n_pixels(config)))
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


def run_maps(channel: socket.socket, descriptor: int) -> None:
    """Fill the maps of one config, in a process of its own that is forked for it."""

    def fill(task: MapsTask) -> MapsRead:
        config = DaqConfig.parse(task.config)
        try:
            return MapsRead("", fill_maps(config, attach_maps(descriptor, _n_pixels(config))))
        except InvalidConfig as refused:
            return MapsRead(str(refused))

    answer(channel, MapsTask, fill)


def create_maps(config: DaqConfig) -> int:
    """Make a memfd for the Maps of a config, all 0; returns its descriptor."""
    descriptor = os.memfd_create("std-daq-maps", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, maps_bytes(_n_pixels(config)))
    return descriptor


def remarks_on(descriptor: int, config: DaqConfig) -> str:
    """Return what is worth a warning of the maps of a config, "" for nothing."""
    end = maps_bytes(_n_pixels(config))
    return os.pread(descriptor, os.fstat(descriptor).st_size - end, end).decode()


def fill_maps(config: DaqConfig, maps: Maps) -> str:
    """Read the config's gain and pedestal files, each module's part to where the module is in the image.

    Returns what is worth a warning of them.

    Raises
    ------
    InvalidConfig
        A file cannot be read, its dataset has another shape, or what is in it makes no pixels;
        the text names file, dataset, stages and modules.
    """
    pedestals = _read(config.pedestal_file, "pedestals", config)
    gains = _read(config.gain_file, "gains", config)
    found: dict[str, _Found] = {"pedestals": Counter(), "gains": Counter()}
    for here in config.layout.ports:
        pixels = pixel_numbers(here)
        first = int(here.first_row) * COLUMNS
        part = slice(first, first + len(pixels))
        for stage in range(STAGES):
            maps[0, stage, pixels] = pedestals[stage, here.module].reshape(-1)[part]
            maps[1, stage, pixels] = gains[stage, here.module].reshape(-1)[part]
            for which, dataset in enumerate(("pedestals", "gains")):
                found[dataset] += _count(maps[which, stage, pixels], stage, int(here.module))
    remarks = (
        _judge(f"/pedestals in {config.pedestal_file}", found["pedestals"], zeros_are_wrong=False),
        _judge(f"/gains in {config.gain_file}", found["gains"], zeros_are_wrong=True),
    )
    return "; ".join(filter(None, remarks))


_Found = Counter[tuple[str, int, int]]
"""How many pixels there are, are no number, or 0: of ("pixels" | "nan" | "zero", stage, module)."""


def _count(values: npt.NDArray[np.float32], stage: int, module: int) -> _Found:
    n_numbers, n_not_zero = np.count_nonzero(np.isfinite(values)), np.count_nonzero(values)
    return Counter(
        {
            ("pixels", stage, module): values.size,
            ("nan", stage, module): values.size - int(n_numbers),
            ("zero", stage, module): values.size - int(n_not_zero),
        }
    )


def _judge(where: str, found: _Found, *, zeros_are_wrong: bool) -> str:
    """Return what is worth a warning of a map; InvalidConfig where it makes no pixels."""
    stages = sorted((stage, module) for kind, stage, module in found if kind == "pixels")
    zero = [at for at in stages if found["zero", *at] == found["pixels", *at]]
    if zero and zeros_are_wrong:
        raise InvalidConfig(
            f"Config errors: {where} is 0 in all pixels of {_named(zero)}: every value would become 0. "
            "Where there is no calibration, NaN says so."
        )
    n = {kind: sum(found[kind, *at] for at in stages) for kind in ("pixels", "nan", "zero")}
    if n["nan"] == n["pixels"]:
        raise InvalidConfig(f"Config errors: {where} has no number for any pixel.")
    remarks = []
    if n["nan"]:
        remarks.append(f"{n['nan']} of {n['pixels']} values are no numbers: such pixels become NaN")
    if n["zero"] and zeros_are_wrong:
        remarks.append(f"{n['zero']} of {n['pixels']} values are 0: such pixels become 0")
    if zero and not zeros_are_wrong:
        remarks.append(f"all are 0 in {_named(zero)}")
    return f"{where}: {', '.join(remarks)}" if remarks else ""


def _named(stages: list[tuple[int, int]]) -> str:
    """Name the first of some (stage, module)."""
    few = ", ".join(f"stage {stage} of module {module}" for stage, module in stages[:SHOWN])
    return few if len(stages) <= SHOWN else f"{few} and {len(stages) - SHOWN} more"


def _n_pixels(config: DaqConfig) -> int:
    height, width = config.layout.image_shape
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
        # By its descriptor, so that it is what was looked at, and with the driver named, for
        # HDF5_DRIVER in the environment could name another.
        with (
            opened_regular(path) as descriptor,
            h5py.File(f"/proc/self/fd/{descriptor}", driver="sec2") as file,
        ):
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
            with np.errstate(over="ignore"):  # what is too large for float32 is no number, and counted
                return np.asarray(found[()], np.float32)
    except NotAFileError as error:
        raise InvalidConfig(f"Config errors: {path} cannot be read: {error}.") from None
    except BlockingIOError:
        raise InvalidConfig(
            f"Config errors: {path} cannot be read: another process has a lease on it."
        ) from None
    except InvalidConfig:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "not an HDF5 file"
        raise InvalidConfig(f"Config errors: {path} cannot be read: {reason}.") from None
    except (RuntimeError, KeyError, ValueError):  # what h5py makes of HDF5's other errors
        raise InvalidConfig(f"Config errors: {path} cannot be read: it is damaged.") from None
