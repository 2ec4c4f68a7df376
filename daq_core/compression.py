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
bitshuffled blocks, each after its length in 4 bytes (bitshuffle's ``bshuf_h5filter.c``,
``bitshuffle.c``). The library of hdf5plugin would make the same of an image in
one call; here its codecs are called block by block, since each block would clear
a new table (LZ4) or make a new context (zstd) there.
"""

from __future__ import annotations

import ctypes
import mmap
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
from daq_core.shuffle import shuffle_block
from daq_core.urgency import be_usual

Compression = Literal["none", "bitshuffle-lz4", "bitshuffle-zstd"]

BITSHUFFLE_FILTER = 32008
LZ4, ZSTD = 2, 3
"""How the HDF5 filter, and a kernel's `how`, call what follows the shuffle."""
ZSTD_LEVEL = 3
"""As hdf5plugin has it."""

LZ4_HASTE = 2
"""LZ4's acceleration: a sixth less CPU time than with 1, for files that are 1 to 2 % larger."""

PLACES_BYTES = 256 * 2**20
ENOUGH_PLACES = 16  # or four for each thread: what is used again stays in the cache
MAX_ROOM = 2**30  # LZ4 counts in 32 bits; a block has 8 KiB
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


_lz4: Any = external(
    "LZ4_compress_fast_extState_fastReset",
    bitshuffle.lz4_reusing,
    types.int32(types.intp, types.intp, types.intp, types.int32, types.int32, types.int32),
)
_zstd: Any = external(
    "ZSTD_compressCCtx",
    bitshuffle.zstd_reusing,
    types.int64(types.intp, types.intp, types.uintp, types.intp, types.uintp, types.int32),
)
_memmove: Any = external("memmove", ctypes.memmove, types.intp(types.intp, types.intp, types.uintp))


@kernel
def _compress(address: int, chunk: Any, how: Any, own: Any) -> int:
    """Make a chunk of the pixels at an address; returns its bytes, 0 or less when the codec failed."""
    codec, n_pixels, item_bytes, block, level = how[0], how[1], how[2], how[3], how[4]
    _put(chunk, 0, 8, n_pixels * item_bytes)
    _put(chunk, 8, 4, block * item_bytes)
    at = 12
    n_shuffled = n_pixels - n_pixels % bitshuffle.BLOCK_MULTIPLE
    for first in range(0, n_shuffled, block):
        n = min(block, n_shuffled - first)
        shuffle_block(address + first * item_bytes, own[0], n, item_bytes)
        into, room = chunk.ctypes.data + at + 4, chunk.shape[0] - at - 4
        n_bytes = n * item_bytes
        size = 0
        if codec == LZ4:
            size += _lz4(
                own[1], own[0], into, np.int32(n_bytes), np.int32(min(room, MAX_ROOM)), np.int32(LZ4_HASTE)
            )
        else:
            size += _zstd(own[1], into, np.uintp(room), own[0], np.uintp(n_bytes), np.int32(level))
        if size <= 0:
            return int(min(size, -1))
        _put(chunk, at, 4, size)
        at += 4 + size
    rest = (n_pixels - n_shuffled) * item_bytes
    _memmove(chunk.ctypes.data + at, address + n_shuffled * item_bytes, np.uintp(rest))
    return int(at + rest)


@kernel
def _put(chunk: Any, at: int, n_bytes: int, value: int) -> None:
    """Write a number, big-endian."""
    for i in range(n_bytes):
        chunk[at + i] = np.uint8(value >> (8 * (n_bytes - 1 - i)) & 0xFF)


@kernel_of(
    types.int64(
        types.int64[::1],
        types.uint8[:, ::1],
        types.int64[::1],
        types.int64[::1],
        types.int64[::1],
        types.int64[::1],
        types.int64,
    )
)
def compress_until(
    images: Any, places: Any, sizes: Any, claimed: Any, how: Any, own: Any, wanted: int
) -> int:
    """Compress images that nobody has claimed, until one of them is done or all are claimed.

    Parameters
    ----------
    images  : (n,) int64, addresses of their pixels
    places  : (n or more, room) uint8, filled with chunks
    sizes   : (n,) int64, bytes of each chunk; 0 until it is done, negative when the codec failed
    claimed : (1,) int64, how many are claimed
    how     : (5,) int64: LZ4 or ZSTD, pixels of an image, bytes of a pixel, pixels of a block, level
    own     : (2,) int64: addresses of memory of this thread, for a block and for the codec's state
    wanted  : int, the image that ends the work

    Returns
    -------
    int  its size; 0 while another thread is compressing it
    """
    while load_acquire(sizes, wanted) == 0:
        i = fetch_add(claimed, 0, 1)
        if i >= images.shape[0]:
            break
        store_release(sizes, i, _compress(images[i], places[i], how, own))
        wake(sizes, i)
    return int(load_acquire(sizes, wanted))


Batch = tuple[Any, Any, Any, Any]  # what compress_until takes, up to `claimed`


class _Hand:
    """What a thread needs of its own: memory for a shuffled block, and the state of its codec."""

    def __init__(self, codec: int, block_bytes: int) -> None:
        self._block = np.empty(block_bytes, np.uint8)
        state = bitshuffle.new_zstd_state() if codec == ZSTD else bitshuffle.new_lz4_state()
        self._state = state  # kept, for its memory
        self.own = np.array([self._block.ctypes.data, state.address], np.int64)


class Compressor:
    """Threads that compress images of one shape and type; the calling one is among them."""

    def __init__(
        self, compression: str, shape: tuple[int, int], dtype: np.dtype[Any], threads: int = 1
    ) -> None:
        found = FILTERS[compression]
        if found is None:
            raise ValueError("there is nothing to compress with 'none'")
        self.filter: Filter = found
        n_pixels = shape[0] * shape[1]
        block = bitshuffle.block_pixels(dtype.itemsize)
        codec = found.options[1]
        self._how = np.array([codec, n_pixels, dtype.itemsize, block, ZSTD_LEVEL], np.int64)
        room = bitshuffle.bound(n_pixels, dtype.itemsize, block, zstd=codec == ZSTD)
        n_places = max(threads, min(PLACES_BYTES // room, max(ENOUGH_PLACES, 4 * threads)))
        # Pages that no chunk reaches are never touched; numpy would ask for huge ones.
        memory = mmap.mmap(-1, n_places * room)
        self._places = np.frombuffer(memory, np.uint8).reshape(n_places, room)
        hands = [_Hand(codec, block * dtype.itemsize) for _ in range(threads)]
        self._hand = hands[0]
        self._helpers: list[queue.SimpleQueue[Batch]] = []
        for hand in hands[1:]:
            batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
            self._helpers.append(batches)
            threading.Thread(target=self._help, args=(batches, hand), name="compress", daemon=True).start()

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
        addresses = np.array([image.ctypes.data for image in images], np.int64)
        sizes, claimed = np.zeros(len(images), np.int64), np.zeros(1, np.int64)
        batch = (addresses, self._places, sizes, claimed)
        for helper in self._helpers[: len(images) - 1]:
            helper.put(batch)
        for i in range(len(images)):
            while (size := compress_until(*batch, self._how, self._hand.own, i)) == 0:
                wait_for_change(sizes, i, 0, WAIT_S)
            if size < 0:
                raise OSError(f"bitshuffle cannot compress an image: error {size}")
            yield self._places[i, :size]

    def _help(self, batches: queue.SimpleQueue[Batch], hand: _Hand) -> None:
        """Compress what there is, batch by batch; a batch that others have finished is left at once."""
        be_usual()
        while True:
            images, places, sizes, claimed = batches.get()
            compress_until(images, places, sizes, claimed, self._how, hand.own, len(images) - 1)
