"""The files of a run that several writers share, and the virtual file over them.

``run7.h5`` becomes ``run7_0.h5``, ``run7_1.h5`` and so on: the run's images in
turn, image i in file i modulo their number, each a whole file of its own. When
all are closed ``run7.h5`` is made: the same names inside, rows copied, and
``data`` a virtual dataset with one mapping for each image, since strided ones are
read at a fiftieth of the speed. HDF5 reads a part that is missing silently as
zeros; ``present`` reads as 0 then.

Parts are named without their folder, so that it can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5p, h5s, h5t

from daq_core.amounts import counted
from daq_core.files import places
from daq_core.files.image_file import explained
from daq_core.files.layout import (
    COLUMNS,
    COUNTERS,
    FINISHED,
    create_detector_group,
    describe_columns,
    record_state,
)
from daq_core.files.left_open import UNREADABLE
from daq_core.files.repair import repair
from daq_core.files.replacing import OpenElsewhere, new_descriptor
from daq_core.files.reports import RecordedEnd, RepairReport
from daq_core.ring.words import MAX_WRITERS
from daq_core.state.acquisition import COMPLETED


def part_path(path: str, number: int) -> str:
    """Return the file of one of several writers."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_{number}{extension}"


def share_of(n_images: int, number: int, n_writers: int) -> int:
    """Return how many of a run's images a writer gets."""
    return max(0, n_images - number + n_writers - 1) // n_writers


@dataclass(frozen=True)
class _Part:
    """What a closed part holds; image i of it is image number + i × n_writers of the run."""

    path: str
    number: int
    n_writers: int
    run_id: str
    shape: tuple[int, ...]  # (images, height, width)
    dtype: np.dtype
    state: str
    message: str
    counters: dict[str, int]
    columns: dict[str, npt.NDArray[np.generic]]

    @classmethod
    def read(cls, path: str) -> _Part:
        """Look into a part; KeyError when it is none."""
        with h5py.File(path) as file:
            run, data = file[places.RUN], file[places.IMAGES]
            return cls(
                path=path,
                number=int(run["writer"][()]),
                n_writers=int(run["n_writers"][()]),
                run_id=file[places.IDENTIFIER].asstr()[()],
                shape=data.shape,
                dtype=data.dtype,
                state=run["state"].asstr()[()],
                message=run["message"].asstr()[()],
                counters={name: int(run["counters"][name][()]) for name in COUNTERS},
                columns={name: file[places.DATA][name][()] for name in COLUMNS},
            )


def make_virtual_file(
    path: str, *, detector_name: str, overwrite: bool = False, roots: Sequence[str] = ("/",)
) -> RecordedEnd:
    """Make the file over the parts beside it, as many as can be read; return how it says the run ended.

    Raises
    ------
    FileExistsError  there is something at `path` that is not to be replaced
    OSError          there is no part, or the file cannot be written
    """
    with explained(f"Cannot create output file {path}"):
        parts = _parts_of(path)
        if not parts:
            raise OSError("none of its parts can be read")
        with (
            new_descriptor(path, overwrite, roots) as fd,
            # Without HDF5's lock, which a reader who polls for the file could take before us.
            h5py.File(
                f"/proc/self/fd/{fd}",
                "w",
                driver="sec2",
                libver=("v110", "v110"),
                track_order=True,
                locking=False,
            ) as file,
        ):
            end = _end_of(parts)
            _fill(file, parts, detector_name, end)
    return end


def _parts_of(path: str) -> list[_Part]:
    """Return the parts of one run that are beside a path and can be read."""
    parts = []
    for number in range(MAX_WRITERS):
        try:
            part = _Part.read(part_path(path, number))
        except UNREADABLE:
            continue
        if part.number == number:
            parts.append(part)
    newest = max(parts, key=lambda part: os.stat(part.path).st_mtime_ns, default=None)
    return [p for p in parts if newest and (p.run_id, p.n_writers) == (newest.run_id, newest.n_writers)]


def _fill(file: h5py.File, parts: Sequence[_Part], detector_name: str, end: RecordedEnd) -> None:
    order = np.concatenate([np.arange(p.shape[0]) * p.n_writers + p.number for p in parts]).argsort()
    with h5py.File(parts[0].path) as first:
        file.attrs.update(first.attrs)
        links = create_detector_group(file, detector_name)
        entry = file.create_group(places.ENTRY, track_order=True)
        entry.attrs.update(first[places.ENTRY].attrs)
        for name, member in first[places.ENTRY].items():
            if member != first[places.DATA]:
                first.copy(member, entry, name)
        data = file.create_group(places.DATA, track_order=True)
        data.attrs.update(first[places.DATA].attrs)
    for name in ("writer", "present"):  # of a part
        del file[places.RUN][name]
    for name in COUNTERS:  # each part has those of the run at its end
        file[places.COUNTERS][name][()] = max(part.counters[name] for part in parts)
    for name in COLUMNS:
        data[name] = np.concatenate([part.columns[name] for part in parts])[order]
    _map_images(data, parts, order)
    describe_columns(data)
    data["present"].attrs["long_name"] = "1 as long as the file with the image is there"
    for name in ("data", *COLUMNS):
        links[name] = data[name]
    file[places.END_TIME][()] = max(_end_times(parts))
    record_state(file, end.state, end.message)


def _end_times(parts: Sequence[_Part]) -> list[bytes]:
    times = []
    for part in parts:
        with h5py.File(part.path) as file:
            times.append(file[places.END_TIME][()])
    return times


def _map_images(data: h5py.Group, parts: Sequence[_Part], order: npt.NDArray[np.int64]) -> None:
    """Make ``data`` and ``present``: row i is row order[i] of all parts' rows one after the other."""
    n_images, image = len(order), parts[0].shape[1:]
    if n_images == 0:  # HDF5 knows no virtual dataset of nothing
        data.create_dataset("data", shape=(0, *image), dtype=parts[0].dtype)
        data.create_dataset("present", shape=(0,), dtype="u1")
        return
    images, present = h5p.create(h5p.DATASET_CREATE), h5p.create(h5p.DATASET_CREATE)
    whole, flags = h5s.create_simple((n_images, *image)), h5s.create_simple((n_images,))
    rows = np.empty(n_images, np.int64)
    rows[order] = np.arange(n_images)  # of each part's images, one after the other: their row here
    before = 0
    for part in parts:
        n = part.shape[0]
        source, name = h5s.create_simple(part.shape), os.path.basename(part.path).encode()
        mine = rows[before : before + n].tolist()
        for i, row in enumerate(mine):
            whole.select_hyperslab((row, 0, 0), (1, *image))
            source.select_hyperslab((i, 0, 0), (1, *image))
            images.set_virtual(whole, name, places.IMAGES.encode(), source)
        for first, count in _runs(mine, part.n_writers):
            flags.select_hyperslab((mine[first],), (count,), (part.n_writers if count > 1 else 1,))
            there = h5s.create_simple((n,))
            there.select_hyperslab((first,), (count,))
            present.set_virtual(flags, name, places.PRESENT.encode(), there)
        before += n
    whole.select_all()
    flags.select_all()
    h5d.create(data.id, b"data", h5t.py_create(parts[0].dtype), whole, images)
    h5d.create(data.id, b"present", h5t.py_create(np.dtype("u1")), flags, present)


def _runs(rows: list[int], step: int) -> list[tuple[int, int]]:
    """Cut rising rows where they do not follow each other at a step: (first, number) of each run."""
    runs: list[tuple[int, int]] = []
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] - rows[i - 1] != step:
            runs.append((first, i - first))
            first = i
    return runs


def _end_of(parts: Sequence[_Part]) -> RecordedEnd:
    """Return how a run ended whose parts ended so: as the first that failed, if one did."""
    failed = [part for part in parts if part.state != FINISHED]
    if failed:
        return RecordedEnd(parts[0].run_id, "FAILED", failed[0].message)
    if len(parts) < parts[0].n_writers:
        n_lost = parts[0].n_writers - len(parts)
        return RecordedEnd(parts[0].run_id, "FAILED", f"ERROR: {n_lost} of the run's files cannot be read.")
    stopped = [part.message for part in parts if part.message != COMPLETED]  # others had their share of it
    return RecordedEnd(parts[0].run_id, FINISHED, stopped[0] if stopped else COMPLETED)


def repair_run(
    path: str, *, failure: str = "", run_id: str = "", roots: Sequence[str] = ("/",)
) -> RepairReport:
    """Make the file of a run readable; one of several writers over their files, which are repaired first.

    Parameters and errors as for :func:`daq_core.files.repair.repair`.
    """
    parts = [part for n in range(MAX_WRITERS) if os.path.lexists(part := part_path(path, n))]
    if not parts or _is_whole(path):
        return repair(path, failure=failure, run_id=run_id, roots=roots)
    reports = [repair(part, failure=failure, run_id=run_id, roots=roots) for part in parts]
    for report in reports:
        if report.outcome == "open elsewhere":
            return replace(report, path=path)
    whole = [report.path for report in reports if report.is_readable]
    if not whole:
        return replace(reports[0], path=path)
    with h5py.File(whole[0]) as file:
        detector_name = file[places.DETECTOR_NAME].asstr()[()]
    overwrite = os.path.lexists(path)
    try:
        end = make_virtual_file(path, detector_name=detector_name, overwrite=overwrite, roots=roots)
    except OpenElsewhere as error:
        return RepairReport(path, "open elsewhere", None, f"{path} was not repaired: {error}")
    with h5py.File(path) as file:
        n_images = len(file[places.IMAGE_IDS])
    said = f"{path} was made over {counted(len(parts), 'file')}, with {counted(n_images, 'image')}."
    return RepairReport(path, "repaired", n_images, said, end)


def _is_whole(path: str) -> bool:
    try:
        with h5py.File(path) as file:
            return places.STATE in file
    except UNREADABLE:
        return False
