"""Jungfrau: reading the files of gain and pedestal into the maps of ``daq_core.writing.gain_maps``.

Runs in a process of its own (``daq_core.processes.question``), forked for one config.

The maps are judged by what a pixel would become. A gain of 0 makes each value 0, which nobody
would see: it is refused where a whole stage of a module has it. A gain of NaN makes pixels NaN, which
shows; it is the way to say that there is no calibration. NaN, pixels without gain and stages without
pedestal are counted, and a warning tells of them as long as these maps are used.
"""

from __future__ import annotations

import os
import socket
from collections import Counter

import h5py
import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.detectors.jungfrau import COLUMNS, ROWS
from daq_core.detectors.sls import pixel_numbers
from daq_core.errors import InvalidConfig
from daq_core.linux.regular_file import NotAFileError, opened_regular
from daq_core.processes.question import answer
from daq_core.writing.gain_maps import STAGES, Maps, attach_maps, n_pixels
from daq_core.writing.task import MapsRead, MapsTask

SHOWN = 3  # stages that a message names


def run_maps(channel: socket.socket, descriptor: int) -> None:
    """Fill the maps of one config, in a process of its own that is forked for it."""

    def fill(task: MapsTask) -> MapsRead:
        config = DaqConfig.parse(task.config)
        try:
            return MapsRead("", fill_maps(config, attach_maps(descriptor, n_pixels(config))))
        except InvalidConfig as refused:
            return MapsRead(str(refused))

    answer(channel, MapsTask, fill)


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


def _read(path: str, dataset: str, config: DaqConfig) -> npt.NDArray[np.float32]:
    """Read a map of all modules, (stages, modules, rows, columns)."""
    expected = (STAGES, config.n_modules, ROWS, COLUMNS)
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
