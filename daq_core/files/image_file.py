"""The file of a run: how images get into it, and how nothing gets lost on the way.

The last room of the data corridor (packets → image ring → file). The writer
process creates one :class:`ImageFile` per run, hands it views of images in the
ring, and closes it. The file is in SWMR mode from its first moment: after each
hand-over a reader sees all images so far, and a killed writer loses none of
them (:mod:`daq_core.files.repair`). What is in it: :mod:`daq_core.files.layout`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - makes the filters known to HDF5, which asks when a file is created
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5f, h5p

from daq_core.codecs.compressor import Compressor
from daq_core.files import places
from daq_core.files.direct_io import BLOCK_BYTES, DirectWriter, is_worth_it
from daq_core.files.layout import (
    COLUMNS,
    ROWS_PER_CHUNK,
    SIGNATURE,
    RunMetadata,
    create_layout,
    extend_present,
    record_end,
)
from daq_core.files.replacing import new_descriptor

_abandoned: list[h5py.File] = []
"""Files that failed. HDF5 may crash when it closes one, and does so when the last reference goes."""


class ImageFile:
    """An HDF5 file that grows by whole images::

        file = ImageFile.create("/data/run7.h5", shape=(514, 1030), dtype=np.dtype("u2"),
                                detector_name="eiger", run=metadata)
        file.append([image], ids, status, missing_packets, timestamps)
        file.close(state="FINISHED", message="Completed.", stop_time=time.time(), counters={})

    Whatever the file system or HDF5 refuses is an OSError that names the file and
    the reason. After the first one only ``close`` is legal. When ``create`` or
    ``close`` raised, end the process with ``os._exit``: HDF5 may crash when it
    cleans up behind a file that failed. ``direct`` writes past the page cache; None: all goes through HDF5.
    """

    def __init__(
        self, path: str, file: h5py.File, compressor: Compressor | None = None, *, direct: bool = False
    ) -> None:
        self.path = path
        self._chunks = compressor.chunks if compressor is not None else iter
        self.n_written = 0
        self._file = file
        data = file[places.IMAGES]
        self._shape: tuple[int, int] = data.shape[1:]
        self._dtype: np.dtype = data.dtype
        self._data: h5d.DatasetID = data.id
        self._columns = [_Column(file[places.DATA][name].id) for name in COLUMNS]
        self.direct: DirectWriter | None = None
        if direct:
            with suppress(OSError):  # a file system without O_DIRECT
                self.direct = DirectWriter(file, self._data)
        self._failure: OSError | None = None
        self._has_name = self._is_named()
        self._n_bytes = 0  # of the file, as far as it has been handed to the operating system
        self._note_size()

    @classmethod
    def create(
        cls,
        path: str,
        *,
        shape: tuple[int, int],
        dtype: np.dtype,
        detector_name: str,
        run: RunMetadata,
        compressor: Compressor | None = None,
        direct: bool = False,
        overwrite: bool = False,
        roots: Sequence[str] = ("/",),
    ) -> ImageFile:
        """Create the file with its whole layout and no image, visible to SWMR readers.

        Parameters
        ----------
        shape      : (height, width) of an image in pixels
        dtype      : of a pixel: uint8, uint16, uint32 or float32
        compressor : of images of that shape and type; None: they are stored as they are
        direct     : write past the page cache, where images and file system allow it
        overwrite  : replace an existing regular file of this user, unless somebody has it open
        roots      : folders that the file may be in, links resolved

        Raises
        ------
        FileExistsError  there is something at `path` that is not to be replaced
        OSError          any other reason why there is no such file now
        """
        with explained(f"Cannot create output file {path}"), new_descriptor(path, overwrite, roots) as fd:
            packed = None if compressor is None else compressor.filter
            direct = direct and packed is None and is_worth_it(shape, np.dtype(dtype))
            # By its descriptor, for the path could name another file by now.
            file = _create_hdf5(f"/proc/self/fd/{fd}", aligned=packed is None)
            try:
                create_layout(file, shape, np.dtype(dtype), detector_name, run, packed, early=direct)
                file.swmr_mode = True
                # HDF5 has no lock. A shared one lets readers in and keeps out whoever would
                # change the file: `repair`, h5clear, another writer.
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file.id.get_vfd_handle(), fcntl.LOCK_SH | fcntl.LOCK_NB)
                return cls(path, file, compressor, direct=direct)
            except BaseException:
                _abandoned.append(file)
                raise

    def append(
        self,
        images: Sequence[npt.NDArray[Any]],
        image_ids: npt.NDArray[np.uint64],
        status: npt.NDArray[np.uint64],
        missing_packets: npt.NDArray[np.uint32],
        timestamps: npt.NDArray[np.float64],
        *,
        queueing: bool = False,
    ) -> int:
        """Write n images and their n rows; return how many images a SWMR reader can see now.

        Parameters
        ----------
        images   : n contiguous views of shape (height, width), written from where they are
        queueing : more of them wait already than is good

        Raises
        ------
        OSError  the images are not in the file, e.g. because the disk is full
        """
        if self._failure is not None:
            raise self._failure
        columns: list[npt.NDArray[Any]] = [image_ids, status, missing_packets, timestamps]
        self._check(images, columns)
        n_images = self.n_written + len(images)
        try:
            self._check_size()
            with explained(f"Cannot write image {self.n_written} to {self.path}"):
                # Rows first and `data` last: a reader who sees an image finds its row.
                for column, rows in zip(self._columns, columns, strict=True):
                    column.append(rows)
                if self.direct is not None:
                    self.direct.append(images, self.n_written, queueing=queueing)
                else:
                    self._append_chunks(images)
                h5f.flush(self._file.id)
            self._note_size()
            self._check_size()
        except OSError as error:
            self._failure = error
            raise
        self.n_written = n_images
        return n_images

    def _append_chunks(self, images: Sequence[npt.NDArray[Any]]) -> None:
        # For all at once: a reader sees neither the length nor the images before the flush.
        self._data.set_extent((self.n_written + len(images), *self._shape))
        for index, chunk in enumerate(self._chunks(images), self.n_written):
            self._data.write_direct_chunk((index, 0, 0), chunk)

    def restate(self, rows: npt.NDArray[np.int64], status: int) -> None:
        """Give images that are in the file already another status.

        Raises
        ------
        OSError  the file says now one thing now another of them, e.g. because its disk is gone
        """
        if self._failure is not None:
            raise self._failure
        try:
            with explained(f"Cannot change the status of images in {self.path}"):
                self._columns[list(COLUMNS).index("status")].change(rows, status)
                h5f.flush(self._file.id)
        except OSError as error:
            self._failure = error
            raise

    def close(self, *, state: str, message: str, stop_time: float, counters: Mapping[str, int]) -> None:
        """Record how the run ended and close the file; every dataset is n_written long.

        Parameters
        ----------
        state, message : of the acquisition; a FINISHED that is not true is recorded as FAILED
        stop_time      : Unix seconds
        counters       : any of ``file_layout.COUNTERS``

        Raises
        ------
        OSError  the first thing that failed since `create`; for a full disk it may be this close
        """
        if self._failure is not None:
            self._attempt(self._cut)
        else:
            self._try(self._check_size)
        self._attempt(self._file.flush)
        if self.direct is not None:
            self.direct.close()
            self._attempt(self.direct.verify)
        self._try(self._check_name)
        if self._failure is not None and state == "FINISHED":
            state, message = "FAILED", f"ERROR: {self._failure}"
        self._attempt(lambda: extend_present(self._file, self.n_written))
        self._attempt(lambda: record_end(self._file, state, message, stop_time, counters))
        same = os.dup(self._file.id.get_vfd_handle())
        try:
            if self._failure is None:
                self._attempt(self._file.flush)
                self._note_size()
            self._attempt(self._file.close)
            if self._failure is None:
                self._try(lambda: self._check_size(same))
        finally:
            os.close(same)
        if self._failure is not None:
            _abandoned.append(self._file)
            raise self._failure

    def check_exists(self) -> None:
        """Raise OSError when the file was removed meanwhile; HDF5 goes on writing to it without a word."""
        if os.fstat(self._file.id.get_vfd_handle()).st_nlink == 0:
            raise OSError(f"{self.path} was removed while it was written; its images are lost.")

    def _note_size(self) -> None:
        """Remember how long the file has to be from now on; everything was flushed."""
        self._n_bytes = self._file.id.get_filesize()

    def _check_size(self, descriptor: int | None = None) -> None:
        """Raise OSError when somebody else has cut the file, whatever became of its length since."""
        descriptor = self._file.id.get_vfd_handle() if descriptor is None else descriptor
        n_bytes = os.fstat(descriptor).st_size
        if n_bytes < self._n_bytes:
            raise OSError(
                f"{self.path} was truncated while it was written: it has {n_bytes} bytes, "
                f"{self._n_bytes} were written; its images are lost."
            )
        if os.pread(descriptor, len(SIGNATURE), 0) != SIGNATURE:
            raise OSError(
                f"{self.path} was overwritten by somebody else: of {n_bytes} bytes the first are not "
                f"what was written; its images are lost."
            )

    def _check_name(self) -> None:
        self.check_exists()
        if self._has_name and not self._is_named():
            raise OSError(f"{self.path} was renamed while it was written; its images are where it is now.")

    def _is_named(self) -> bool:
        """Tell whether the path leads to this file; on some file systems that cannot be known."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._file.id.get_vfd_handle()), os.stat(self.path))
        return False

    def _check(self, images: Sequence[npt.NDArray[Any]], columns: list[npt.NDArray[Any]]) -> None:
        """HDF5 would take any bytes for a chunk."""
        for image in images:
            if image.shape != self._shape or image.dtype != self._dtype or not image.flags.c_contiguous:
                raise ValueError(
                    f"an image must be {self._dtype} {self._shape}, C-contiguous; "
                    f"got {image.dtype} {image.shape} with strides {image.strides}"
                )
        if any(len(rows) != len(images) for rows in columns):
            raise ValueError(f"{len(images)} images need as many rows, got {[len(c) for c in columns]}")

    def _cut(self) -> None:
        """Take back what an `append` that failed has added."""
        self._data.set_extent((self.n_written, *self._shape))
        if self.direct is not None:
            self.direct.cut(self.n_written)
        for column in self._columns:
            column.cut(self.n_written)

    def _try(self, look: Callable[[], None]) -> None:
        """Look at the file; remember the first failure, which explains itself, and go on."""
        try:
            look()
        except OSError as error:
            self._failure = self._failure or error

    def _attempt(self, step: Callable[[], None]) -> None:
        """Take a step of closing; remember the first failure and go on."""
        try:
            with explained(f"Cannot close {self.path}"):
                step()
        except OSError as error:
            self._failure = self._failure or error


class _Column:
    """A growing 1-D dataset whose newest chunk is kept here and rewritten at each hand-over.

    That takes half the time of writing only the new rows through an HDF5 selection.
    """

    def __init__(self, dataset: h5d.DatasetID) -> None:
        self._dataset = dataset
        self._chunk = np.zeros(ROWS_PER_CHUNK, dataset.dtype)
        self._n_rows = 0

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._dataset.set_extent((self._n_rows + len(rows),))
        while len(rows):
            start = self._n_rows % ROWS_PER_CHUNK
            fitting = rows[: ROWS_PER_CHUNK - start]
            self._chunk[start : start + len(fitting)] = fitting
            self._dataset.write_direct_chunk((self._n_rows - start,), self._chunk)
            self._n_rows += len(fitting)
            rows = rows[len(fitting) :]

    def change(self, rows: npt.NDArray[np.int64], value: int) -> None:
        """Give some rows, which are there, another value."""
        newest = (self._n_rows - 1) // ROWS_PER_CHUNK
        for number in np.unique(rows // ROWS_PER_CHUNK).tolist():
            at = (number * ROWS_PER_CHUNK,)
            chunk = self._chunk
            if number != newest:
                chunk = np.frombuffer(self._dataset.read_direct_chunk(at)[1], self._chunk.dtype).copy()
            chunk[rows[rows // ROWS_PER_CHUNK == number] % ROWS_PER_CHUNK] = value
            self._dataset.write_direct_chunk(at, chunk)

    def cut(self, n_rows: int) -> None:
        self._dataset.set_extent((n_rows,))


def _create_hdf5(path: str, aligned: bool) -> h5py.File:
    """Make an empty HDF5 file with what SWMR, aligned chunks and honest errors need."""
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_link_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED)  # see create_layout
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_sec2()  # named, for HDF5_DRIVER in the environment could name another
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)  # the oldest format with SWMR
    # On ext4 a chunk that does not begin at a page costs 1.3 times as much CPU time. Compressing hides
    # that, and half a page would be lost at each chunk: 4 to 9 % of the file.
    if aligned:
        access.set_alignment(BLOCK_BYTES, BLOCK_BYTES)  # of what is a page or larger
    # Neither a chunk cache, which would be a copy, nor a sieve buffer for the small
    # datasets: both may be written as late as a dataset is closed, where h5py loses the error.
    access.set_cache(0, 0, 0, 0.0)
    # The descriptor is of a new file, or of one that nobody else had open: HDF5's own lock
    # would only fail when a reader who polls for the file takes his in this very moment.
    access.set_file_locking(False, False)
    access.set_sieve_buf_size(0)
    return h5py.File(h5f.create(path.encode(), h5f.ACC_TRUNC, creation, access))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the stack of messages that HDF5 gives into one line: `what`, and the reason."""
    try:
        yield
    except FileExistsError:
        raise  # ours, explained already
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # KeyError: h5py could not read a group
        found = re.search(r"errno = (\d+)", str(error))
        errno = int(found[1]) if found else getattr(error, "errno", None)
        reason = os.strerror(errno) if errno else str(error).rstrip(".")
        explained = OSError(f"{what}: {reason}.")  # its text is this alone, without "[Errno n]"
        explained.errno = errno
        raise explained from error
