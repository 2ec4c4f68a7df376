"""What is in the file of a run: images, their ids and losses, how the run went. For people and for scripts.

Works on files that are being written, and on those a killed writer left behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from daq_core.errors import DaqError, InvalidRequest, Unavailable
from daq_core.files import places
from daq_core.files.layout import SIGNATURE, UNFINISHED
from daq_core.files.left_open import UNREADABLE, opened_as_closed
from daq_core.files.superblock import SUPERBLOCK, NotOurs
from daq_core.ring.ring import ID_MISMATCH, OTHER_FORMAT

CONSISTENCY_FLAGS = 11
"""Which byte of a superblock of version 3 says that the file is being written; see ``superblock``."""

LIVE_TRIES, LIVE_PAUSE_S = 20, 0.05

Condition = Literal["closed", "being written", "left open"]
"""left open: its writer was killed before it could close it."""


@dataclass(frozen=True)
class Ids:
    """The image ids of a file."""

    first: int
    last: int
    rising: bool
    """Each is higher than the one before."""
    n_repeated: int
    gaps: list[tuple[int, int]]
    """First and last of each range of ids that is missing between the lowest and the highest."""


@dataclass(frozen=True)
class FileContents:
    """What :func:`read_file` found."""

    path: str
    condition: Condition
    shape: tuple[int, ...]  # (images, rows, columns)
    dtype: str
    ids: Ids | None  # None: no image
    status: dict[int, int]  # images of each status: 0 good, 1 missing packets, 2 ids disagree, 3 other format
    missing_packets: int
    images_with_losses: dict[int, int]  # image id → missing packets
    seconds: float  # from the first image's first packet to the last's
    rate_hz: float  # 0 for fewer than two images
    run: dict[str, Any]  # /entry/run, and the times; counters −1 where nobody knows them yet


def read_file(path: str | Path) -> FileContents:
    """Look into a file of this DAQ.

    Raises
    ------
    InvalidRequest
        It is not a file of this DAQ.
    Unavailable
        It cannot be opened or read.
    """
    path = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened: {error.strerror}.") from None
    try:
        if not _is_marked(path, descriptor):
            with h5py.File(path, "r") as file:
                return _read(path, file, is_open=False)
        return _read_marked(path, descriptor, is_open=_is_locked(descriptor))
    except DaqError:
        raise
    except NotOurs as reason:
        raise Unavailable(f"{path} cannot be read: {reason}.") from None
    except KeyError as error:
        if "errno" in str(error):  # h5py says it so when it could not read a group
            raise Unavailable(f"{path} cannot be read by HDF5: {error}.") from None
        raise InvalidRequest(
            f"{path} is an HDF5 file, but not one of this DAQ: it lacks /{places.DATA} or /{places.RUN}."
        ) from None
    except UNREADABLE as error:
        said = str(error).rstrip(".") or type(error).__name__
        raise Unavailable(f"{path} cannot be read by HDF5: {said}.") from None
    finally:
        os.close(descriptor)


def _is_marked(path: str, descriptor: int) -> bool:
    """Tell whether a file is marked as being written; InvalidRequest when it is no HDF5 file."""
    head = os.pread(descriptor, SUPERBLOCK.size, 0)
    if not head.startswith(SIGNATURE):
        raise InvalidRequest(f"{path} is neither an HDF5 file nor a recording (a folder).")
    return head[CONSISTENCY_FLAGS : CONSISTENCY_FLAGS + 1] not in (b"", b"\0")


def _read_marked(path: str, descriptor: int, is_open: bool) -> FileContents:
    """Read a file that is marked as being written; one that really is may be caught in a change, and is
    read again."""
    for n_left in reversed(range(LIVE_TRIES if is_open else 1)):
        try:
            with opened_as_closed(descriptor) as file:
                return _read(path, file, is_open)
        except UNREADABLE:
            if not n_left:
                raise
            time.sleep(LIVE_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: nobody knows, so nobody is told to repair it
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _read(path: str, file: h5py.File, is_open: bool) -> FileContents:
    data = file[places.DATA]
    images = data["data"]
    n = len(images)  # rows are written before the image they belong to
    ids: npt.NDArray[np.uint64] = data["image_id"][:n]
    missing = data["missing_packets"][:n]
    codes, counts = np.unique(data["status"][:n], return_counts=True)
    status: dict[int, int] = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    times = data["timestamp"][:n]
    seconds = float(times[-1] - times[0]) if n else 0.0
    run = _read_run(file)
    lossy = np.flatnonzero(missing)
    so_far = {
        "missing_packets": int(missing.sum()),
        "incomplete_images": len(lossy),
        "mismatched_images": status.get(ID_MISMATCH, 0),
        "other_format_images": status.get(OTHER_FORMAT, 0),
    }
    for name, count in run["counters"].items():
        if count < 0:  # its writer fills it in at the end
            run["counters"][name] = so_far.get(name, count)
    unfinished = run["state"] == UNFINISHED
    return FileContents(
        path=path,
        condition=("being written" if is_open else "left open") if unfinished else "closed",
        shape=(n, *images.shape[1:]),
        dtype=str(images.dtype),
        ids=_read_ids(ids) if n else None,
        status=status,
        missing_packets=so_far["missing_packets"],
        images_with_losses=dict(zip(ids[lossy].tolist(), missing[lossy].tolist(), strict=True)),
        seconds=seconds,
        rate_hz=(n - 1) / seconds if seconds > 0 else 0.0,
        run=run,
    )


def _read_ids(ids: npt.NDArray[np.uint64]) -> Ids:
    ordered = np.unique(ids)
    before = np.flatnonzero(np.diff(ordered) > 1)
    gaps = zip(
        (ordered[before] + np.uint64(1)).tolist(), (ordered[before + 1] - np.uint64(1)).tolist(), strict=True
    )
    return Ids(
        first=int(ids[0]),
        last=int(ids[-1]),
        rising=bool((ids[1:] > ids[:-1]).all()),
        n_repeated=len(ids) - len(ordered),
        gaps=list(gaps),
    )


def _read_run(file: h5py.File) -> dict[str, Any]:
    about, detector, program = file[places.RUN], file[places.DETECTOR], file[places.PROGRAM]
    return {
        "state": _text(about["state"]),
        "message": _text(about["message"]),
        "run_id": _value(about["run_id"]),
        "n_images": int(about["n_images"][()]),
        "start_time": _text(file[places.START_TIME]),
        "end_time": _text(file[places.END_TIME]),
        "detector_name": _text(detector["local_name"]),
        "detector_type": _text(detector["description"]),
        "bit_depth": int(detector["bit_depth_readout"][()]),
        "software": f"{_text(program)} {_legible(program.attrs.get('version', ''))}".rstrip(),
        "counters": {name: int(count[()]) for name, count in about["counters"].items()},
    }


def _value(dataset: h5py.Dataset) -> int | str:
    return int(dataset[()]) if dataset.dtype.kind in "iu" else _text(dataset)


def _legible(attribute: object) -> str:
    """Return an attribute as text that can be printed, whatever a damaged file has in its place."""
    return str(attribute).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(dataset: h5py.Dataset) -> str:
    return str(dataset.asstr()[()])
