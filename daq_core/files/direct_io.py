"""Uncompressed images past the page cache (O_DIRECT), straight to where their chunks lie in an HDF5 file.

Theory of operation. The dataset allocates a chunk's place when it is extended
(early allocation, no fill). HDF5 tells a chunk's address only by looking through
all of them; but when extending by one image moves the end of the file by
exactly one chunk, the chunk lies there. Such images are written to their address
from the ring, several that follow each other in one call; one whose place is not sure,
since HDF5 allocated something else meanwhile, goes through HDF5. At the end all
addresses are compared with those that HDF5 has.

The cache takes bursts that are faster than the disk. So when images queue up, they
go through HDF5 into the cache, unless that has shown to be the slower way here.

A file system that has no O_DIRECT says so when the file is opened, or at the first
write; everything goes through HDF5 then.
"""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # control asks for BLOCK_BYTES, and does without HDF5
    import h5py
    from h5py import h5d

BLOCK_BYTES = 4096
"""What addresses in memory and file, and lengths, are multiples of: a page, the largest block of disks."""
WORTH_BYTES = 128 * 1024
"""Less than that is written faster through the cache, whatever the disk."""

ELSEWHERE = -1

Images = Sequence[npt.NDArray[Any]]


def is_worth_it(shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Tell whether images of this size should go directly to the disk."""
    return shape[0] * shape[1] * dtype.itemsize >= WORTH_BYTES


class DirectWriter:
    """Writes images of one dataset at addresses it is sure of.

    Parameters
    ----------
    file : open for writing, with chunks at multiples of BLOCK_BYTES
    data : (images, height, width), one image a chunk, allocated early and never filled

    Raises
    ------
    OSError  the file system has no O_DIRECT
    """

    def __init__(self, file: h5py.File, data: h5d.DatasetID) -> None:
        self._file = file.id
        self._data = data
        self._image: tuple[int, ...] = data.shape[1:]
        self._image_bytes = int(np.prod(self._image)) * data.dtype.itemsize
        self._descriptor = os.open(
            f"/proc/self/fd/{self._file.get_vfd_handle()}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC
        )
        self.addresses = array("q")  # of each image; ELSEWHERE for those that went through HDF5
        self._pace = [0.0, 0.0]  # seconds a byte: through HDF5, directly; 0 is unknown

    def append(self, images: Images, first: int, *, queueing: bool) -> None:
        """Write images as those from number `first` on, which the dataset is extended by.

        Raises
        ------
        OSError  the disk does not take them
        """
        through_hdf5 = queueing and not 0 < self._pace[1] < self._pace[0]
        started = time.monotonic()
        if through_hdf5 or self._descriptor < 0:
            for i, image in enumerate(images, first):
                self._extend(i)
                self._through_hdf5(i, image)
        else:
            self._directly(images, first)
        self._pace[not through_hdf5] = (time.monotonic() - started) / (len(images) * self._image_bytes)

    def _directly(self, images: Images, first: int) -> None:
        pending: list[npt.NDArray[Any]] = []
        at = 0  # the address of the first of them
        for i, image in enumerate(images, first):
            address = self._extend(i)
            if (
                pending and address != at + len(pending) * self._image_bytes
            ):  # always, if that is no whole pages
                self._write(pending, at, i - len(pending))
                pending = []
            if address is None or image.ctypes.data % BLOCK_BYTES:
                self._through_hdf5(i, image)
                continue
            if not pending:
                at = address
            pending.append(image)
        if pending:
            self._write(pending, at, first + len(images) - len(pending))

    def _extend(self, number: int) -> int | None:
        """Extend the dataset by an image; return its address, None where that is not sure."""
        before = -(-self._file.get_filesize() // BLOCK_BYTES) * BLOCK_BYTES
        self._data.set_extent((number + 1, *self._image))
        return before if self._file.get_filesize() - before == self._image_bytes else None

    def _through_hdf5(self, number: int, image: npt.NDArray[Any]) -> None:
        self._data.write_direct_chunk((number, 0, 0), image)
        self.addresses.append(ELSEWHERE)

    def _write(self, images: Images, address: int, first: int) -> None:
        """Write images that follow each other in the file."""
        memory = [image.reshape(-1).view(np.uint8).data for image in images]
        rest = self._image_bytes % BLOCK_BYTES
        if rest:  # then it is one image, and its last page, which it has for itself, goes through the cache
            last = memory[0][-rest:]
            memory = [memory[0][:-rest]]
        if self._descriptor >= 0 and self._write_all(memory, address):
            if rest:
                _put(self._file.get_vfd_handle(), last, address + self._image_bytes - rest)
            self.addresses.extend(address + i * self._image_bytes for i in range(len(images)))
        else:
            for i, image in enumerate(images, first):
                self._through_hdf5(i, image)

    def _write_all(self, memory: list[memoryview], address: int) -> bool:
        """Write until nothing is left; False when the file system turns out not to take it this way."""
        while memory:
            try:
                n = os.pwritev(self._descriptor, memory, address)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.close()
                return False
            address += n
            while memory and n >= len(memory[0]):
                n -= len(memory.pop(0))
            if memory and n:
                memory[0] = memory[0][n:]
        return True

    def verify(self) -> None:
        """Compare every address that was written to with HDF5's; RuntimeError if one differs."""
        wanted = {i: address for i, address in enumerate(self.addresses) if address != ELSEWHERE}
        n_found = 0

        def look_at(chunk: h5d.StoreInfo) -> None:
            nonlocal n_found
            n_found += wanted.get(chunk.chunk_offset[0]) == chunk.byte_offset

        if wanted:
            self._data.chunk_iter(look_at)
        if n_found != len(wanted):
            raise RuntimeError(f"{len(wanted) - n_found} images were written to a wrong place")

    def cut(self, n_images: int) -> None:
        """Forget the images from a number on, which are taken out of the dataset again."""
        del self.addresses[n_images:]

    def close(self) -> None:
        """Close the descriptor; what is appended now goes through HDF5."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _put(descriptor: int, memory: memoryview, address: int) -> None:
    while memory:
        n = os.pwrite(descriptor, memory, address)
        memory, address = memory[n:], address + n
