"""What is in the file of a run, and where: groups, datasets, attributes.

SWMR mode, in which the file is written, forbids new objects. So what is known
only at the end has its place from the start, and ``/entry/run/state`` says
WRITING until it is filled in. Described for users in ``docs/reference/file.md``.

Source: NeXus base classes NXentry, NXdata, NXdetector (https://manual.nexusformat.org);
the names of std_daq's own files (``/<detector_name>/data``, ``image_id``, ``status``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from daq_core.codecs.compressor import Filter
from daq_core.files import places

COLUMNS = {"image_id": "u8", "status": "u8", "missing_packets": "u4", "timestamp": "f8"}
"""The 1-D datasets beside ``data`` and their types; one row an image."""

ROWS_PER_CHUNK = 512
"""Rows of a column in one chunk: a page of 8-byte numbers, rewritten whole at each hand-over."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""What every file begins with. Source: HDF5 File Format Specification 3.0, II.A "Superblock"."""

FINISHED = "FINISHED"
UNFINISHED = "WRITING"
"""``/entry/run/state`` of a file that was not closed, or not yet."""

COUNTERS = (
    "missing_packets",
    "incomplete_images",
    "dropped_images",
    "mismatched_images",
    "other_format_images",
    "sparse_images",
    "invalid_pixels",
)
"""The losses of a run as in ``status.Losses``; −1 in the file until it is closed."""

MAX_TIME_BYTES = 32
MAX_STATE_BYTES = 32
MAX_MESSAGE_BYTES = 1024


@dataclass(frozen=True)
class RunMetadata:
    """What the file says of its run from the start."""

    run_id: int | str
    n_images: int  # asked for; 0: until it is stopped
    start_time: float  # Unix seconds
    config_json: str  # the detector config, as DaqConfig.as_json gives it
    software: str  # name and version: "std-daq-ioc 0.1.0"
    detector_type: str
    bit_depth: int  # of a pixel on the wire
    writer: int = 0  # number of the writer of this file, of
    n_writers: int = 1  # writers that share the run's images


def create_layout(
    file: h5py.File,
    shape: tuple[int, int],
    dtype: np.dtype,
    detector_name: str,
    run: RunMetadata,
    packed: Filter | None = None,
    *,
    early: bool = False,
) -> None:
    """Make every object the file will ever have, for images of `shape` and `dtype`.

    They are `packed` by a filter, or have their place in the file `early`: as soon as they are counted.
    """
    file.attrs.update(NX_class="NXroot", default=places.ENTRY, creator=run.software)

    links = create_detector_group(file, detector_name)

    _create_group(file, places.ENTRY, "NXentry", default="data")
    program, _, version = run.software.partition(" ")
    file[places.PROGRAM] = program
    file[places.PROGRAM].attrs["version"] = version
    file[places.IDENTIFIER] = str(run.run_id)
    file[places.START_TIME] = _iso8601(run.start_time)
    _create_text(file, places.END_TIME, MAX_TIME_BYTES, "")

    _create_group(file, places.INSTRUMENT, "NXinstrument")
    detector = _create_group(file, places.DETECTOR, "NXdetector")
    file[places.DETECTOR_NAME] = detector_name
    detector["description"] = run.detector_type
    detector["bit_depth_readout"] = np.int64(run.bit_depth)

    about = _create_group(file, places.RUN, "NXcollection")
    about["run_id"] = np.int64(run.run_id) if isinstance(run.run_id, int) else run.run_id
    about["n_images"] = np.int64(run.n_images)
    about["config"] = run.config_json
    _create_text(file, places.STATE, MAX_STATE_BYTES, UNFINISHED)
    _create_text(file, places.MESSAGE, MAX_MESSAGE_BYTES, "")
    counters = _create_group(file, places.COUNTERS, "NXcollection")
    for name in COUNTERS:
        counters[name] = np.int64(-1)

    if run.n_writers > 1:
        about["writer"], about["n_writers"] = np.int64(run.writer), np.int64(run.n_writers)
        _create_growing(file, places.PRESENT, (), np.dtype("u1"), ROWS_PER_CHUNK, fill_value=1)

    data = _create_group(file, places.DATA, "NXdata", signal="data")
    for name, kind in COLUMNS.items():
        _create_growing(data, name, (), np.dtype(kind), ROWS_PER_CHUNK)
    # After the columns: HDF5 flushes metadata in the order of its place in the file.
    _create_growing(data, "data", shape, dtype, 1, packed, early=early)
    describe_columns(data)
    for name in ("data", *COLUMNS):
        links[name] = data[name]  # a hard link


def create_detector_group(file: h5py.File, detector_name: str) -> h5py.Group:
    """Make the group with the detector's name, where std_daq's readers look; call it before all others."""
    # The root group lists its members in order of creation, and the detector comes first:
    # readers that take "the first group, then /data" find the images, as in std_daq's files.
    # Readers of NeXus go by the `default` attributes.
    return _create_group(file, detector_name, "NXcollection")


def describe_columns(data: h5py.Group) -> None:
    """Give the datasets of an image group their attributes."""
    data["data"].attrs["interpretation"] = "image"
    data["timestamp"].attrs.update(units="s", long_name="Unix time of the first packet of the image")


def extend_present(file: h5py.File, n_images: int) -> None:
    """Say that so many images are here; only a part of a run has that dataset, and it reads as 1 all over."""
    if "present" in file[places.RUN]:
        file[places.PRESENT].resize(n_images, axis=0)


def record_end(
    file: h5py.File, state: str, message: str, stop_time: float, counters: Mapping[str, int]
) -> None:
    """Fill in what was unknown while the run went on; the state comes last."""
    file[places.END_TIME][()] = _iso8601(stop_time)
    for name, count in counters.items():
        file[places.COUNTERS][name][()] = count
    record_state(file, state, message)


def record_state(file: h5py.File, state: str, message: str) -> None:
    """Write how the run ended; a message that is too long is cut."""
    file[places.MESSAGE][()] = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    file[places.STATE][()] = state


def _create_group(parent: h5py.Group, name: str, nx_class: str, **attributes: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update(NX_class=nx_class, **attributes)
    return group


def _create_text(group: h5py.Group, name: str, n_bytes: int, text: str) -> None:
    """Create a text of fixed length, which can be changed in SWMR mode; others cannot."""
    group.create_dataset(name, dtype=h5py.string_dtype("utf-8", n_bytes), data=text)


def _create_growing(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    n_per_chunk: int,
    packed: Filter | None = None,
    fill_value: int = 0,
    early: bool = False,
) -> None:
    """Create a dataset of 0 rows that may grow without limit, `n_per_chunk` rows a chunk."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((n_per_chunk, *shape))
    properties.set_fill_time(h5d.FILL_TIME_NEVER)  # every chunk is written whole
    properties.set_obj_track_times(False)
    if fill_value:  # nothing is written then
        properties.set_fill_time(h5d.FILL_TIME_IFSET)
        properties.set_alloc_time(h5d.ALLOC_TIME_INCR)
        properties.set_fill_value(np.array(fill_value, dtype))
    if early:
        properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    if packed is not None:
        properties.set_filter(packed.code, h5z.FLAG_MANDATORY, packed.options)
    space = h5s.create_simple((0, *shape), (h5s.UNLIMITED, *shape))
    h5d.create(group.id, name.encode(), h5t.py_create(dtype), space, properties)


def _iso8601(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="microseconds")
