"""Compressing a run's images on all allotted cores, for one thread that writes them in order.

Theory of operation. A hand-over's images lie in the ring. Each thread, the
writing one too, claims the next image that nobody has claimed and compresses it
into its place in memory of the writer's own, all without the GIL. The writing
thread takes the results in order, each as soon as it is there, and compresses
meanwhile instead of waiting. So order needs no sorting, and one core needs no
second thread.

What waits here is bounded by that memory: PLACES_BYTES, but at least a place for each
thread. When all places are taken, images wait in the ring; when that is full
too, the newest are dropped and counted.

Source: a chunk of HDF5 filter 32008 is what ``bitshuffle.py`` calls a header and
bitshuffled blocks (bitshuffle's ``bshuf_h5filter.c``).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core import bitshuffle
from daq_core.compiled import external, fetch_add, kernel, kernel_of, load_acquire, store_release, wake
from daq_core.ring import wait_for_change

Compression = Literal["none", "bitshuffle-lz4", "bitshuffle-zstd"]

BITSHUFFLE_FILTER = 32008
LZ4, ZSTD = 2, 3
"""How the HDF5 filter, and a kernel's `how`, call what follows the shuffle."""
ZSTD_LEVEL = 3
"""As hdf5plugin has it; lower ones are hardly faster on blocks of 8 KiB."""

PLACES_BYTES = 256 * 2**20
MAX_THREADS = 16
WAIT_S = 1.0  # how long a missed wake-up of another thread could go unnoticed


@dataclass(frozen=True)
class Filter:
    """A filter of the HDF5 library, as a dataset names it."""

    code: int
    options: tuple[int, ...]


FILTERS: dict[str, Filter | None] = {
    "none": None,
    "bitshuffle-lz4": Filter(BITSHUFFLE_FILTER, (0, LZ4)),
    "bitshuffle-zstd": Filter(BITSHUFFLE_FILTER, (0, ZSTD, ZSTD_LEVEL)),
}


def load_filters() -> None:
    """Make the filters known to the HDF5 library of this process; it asks for them when a file is created."""
    import hdf5plugin  # noqa: F401 - 30 ms, which only processes that write files spend


_bshuf_compress_lz4: Any = external(
    "bshuf_compress_lz4",
    bitshuffle.compress_lz4_blocks,
    types.int64(types.intp, types.intp, types.uintp, types.uintp, types.uintp),
)
_bshuf_compress_zstd: Any = external(
    "bshuf_compress_zstd",
    bitshuffle.compress_zstd_blocks,
    types.int64(types.intp, types.intp, types.uintp, types.uintp, types.uintp, types.int32),
)


@kernel
def _compress(address: Any, chunk: Any, how: Any) -> int:
    """Make a chunk of the pixels at an address; returns its bytes, or bitshuffle's error."""
    n_pixels, item_bytes, block = how[1], how[2], how[3]
    for i in range(8):
        chunk[i] = np.uint8((n_pixels * item_bytes) >> (56 - 8 * i) & 0xFF)
    for i in range(4):
        chunk[8 + i] = np.uint8((block * item_bytes) >> (24 - 8 * i) & 0xFF)
    pixels, into, size = np.intp(address), chunk.ctypes.data + 12, np.uintp(n_pixels)
    if how[0] == LZ4:
        n = _bshuf_compress_lz4(pixels, into, size, np.uintp(item_bytes), np.uintp(block))
    else:
        level = np.int32(how[4])
        n = _bshuf_compress_zstd(pixels, into, size, np.uintp(item_bytes), np.uintp(block), level)
    return int(n + 12 if n > 0 else min(n, -1))


@kernel_of(
    types.int64(
        types.uint64[::1],
        types.uint8[:, ::1],
        types.int64[::1],
        types.int64[::1],
        types.int64[::1],
        types.int64,
    )
)
def compress_until(images: Any, places: Any, sizes: Any, claimed: Any, how: Any, wanted: int) -> int:
    """Compress images that nobody has claimed, until one of them is done or all are claimed.

    Parameters
    ----------
    images  : (n,) uint64, addresses of their pixels
    places  : (n or more, room) uint8, filled with chunks
    sizes   : (n,) int64, bytes of each chunk; 0 until it is done, negative when bitshuffle failed
    claimed : (1,) int64, how many are claimed
    how     : (5,) int64: LZ4 or ZSTD, pixels of an image, bytes of a pixel, pixels of a block, level
    wanted  : int, the image that ends the work

    Returns
    -------
    int  its size; 0 while another thread is compressing it
    """
    while load_acquire(sizes, wanted) == 0:
        i = fetch_add(claimed, 0, 1)
        if i >= images.shape[0]:
            break
        store_release(sizes, i, _compress(images[i], places[i], how))
        wake(sizes, i)
    return int(load_acquire(sizes, wanted))


Work = tuple[Any, ...]  # what compress_until takes


class Compressor:
    """Threads that compress images of one shape and type.

    ``threads``: the calling one included; 0: one for each core this process may use.
    """

    def __init__(
        self, compression: str, shape: tuple[int, int], dtype: np.dtype[Any], threads: int = 0
    ) -> None:
        found = FILTERS[compression]
        if found is None:
            raise ValueError("there is nothing to compress with 'none'")
        self.filter: Filter = found
        n_pixels = shape[0] * shape[1]
        block = bitshuffle.block_pixels(dtype.itemsize)
        codec = found.options[1]
        self._how = np.array([codec, n_pixels, dtype.itemsize, block, ZSTD_LEVEL], np.int64)
        n_threads = threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))
        room = bitshuffle.bound(n_pixels, dtype.itemsize, block, zstd=codec == ZSTD)
        n_places = max(n_threads, min(PLACES_BYTES // room, 64))
        self._places = np.empty((n_places, room), np.uint8)  # pages that no chunk reaches are never touched
        self._helpers: list[queue.SimpleQueue[Work]] = []
        for number in range(1, n_threads):
            work: queue.SimpleQueue[Work] = queue.SimpleQueue()
            self._helpers.append(work)
            threading.Thread(target=_help, args=(work,), name=f"compress-{number}", daemon=True).start()

    def chunks(self, images: Sequence[npt.NDArray[Any]]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the chunk of each image, (bytes,) uint8, in order; it is good until the next is asked for.

        Parameters
        ----------
        images : contiguous, of the shape and type given; they must stay until the last chunk is there

        Raises
        ------
        OSError  bitshuffle failed, for want of memory
        """
        for first in range(0, len(images), len(self._places)):
            yield from self._compressed(images[first : first + len(self._places)])

    def _compressed(self, images: Sequence[npt.NDArray[Any]]) -> Iterator[npt.NDArray[np.uint8]]:
        addresses = np.array([image.ctypes.data for image in images], np.uint64)
        sizes, claimed = np.zeros(len(images), np.int64), np.zeros(1, np.int64)
        work = (addresses, self._places, sizes, claimed, self._how)
        for helper in self._helpers[: len(images) - 1]:
            helper.put((*work, len(images) - 1))
        for i in range(len(images)):
            while (size := compress_until(*work, i)) == 0:
                wait_for_change(sizes, i, 0, WAIT_S)
            if size < 0:
                raise OSError(f"bitshuffle cannot compress an image: error {size}")
            yield self._places[i, :size]


def _help(work: queue.SimpleQueue[Work]) -> None:
    """Compress what there is, batch by batch; a batch that others have finished is left at once."""
    while True:
        compress_until(*work.get())
