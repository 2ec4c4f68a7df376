"""A file that its writer left open, shown to HDF5 as if it had been closed; nothing is changed.

HDF5 refuses a file that is marked as being written, except in SWMR mode, in which it waits for ever
for what a damaged file does not have. Here it reads through a view: the superblock without the
mark, and zeros behind the end of the file up to where the superblock says that it ends.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from daq_core.files.superblock import SUPERBLOCK, NotOurs, read_superblock

MOST_MISSING_BYTES = 1 << 30  # what HDF5 reserves ahead of its images is less
UNREADABLE = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, IndexError),
)
"""What h5py raises on a damaged file: no kind of error is left out by what a flipped bit can mean."""


class _AsClosed(io.RawIOBase):
    """The view, as h5py's fileobj driver wants it."""

    def __init__(self, descriptor: int) -> None:
        superblock = read_superblock(descriptor)
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._end = max(self._size, superblock.end_of_file)
        if self._end - self._size > MOST_MISSING_BYTES:
            raise NotOurs(f"it has {self._size} bytes of the {self._end} that it says it has")
        self._head = superblock.closed(self._end).packed()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(0, min(len(view), self._end - self._at))
        found = os.pread(self._descriptor, min(n, max(0, self._size - self._at)), self._at)
        data = bytearray(found.ljust(n, b"\0"))
        if self._at < SUPERBLOCK.size:
            head = self._head[self._at : self._at + n]
            data[: len(head)] = head
        view[:n] = data
        self._at += n
        return n


@contextmanager
def opened_as_closed(descriptor: int) -> Iterator[h5py.File]:
    """Open the file of a descriptor for reading, whatever its superblock says of its writer.

    Raises
    ------
    NotOurs
        Its superblock is not one of a file of this DAQ, or says that most of the file is missing.
    OSError and others of UNREADABLE
        HDF5 cannot read it.
    """
    with h5py.File(_AsClosed(descriptor), "r") as file:
        yield file
