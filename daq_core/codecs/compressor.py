"""Compressing a run's images on all allotted cores, for one thread that writes them in order.

Theory of operation. A hand-over's images lie in the ring. Each thread, the
writing one too, claims the next image that nobody has claimed and compresses it
into its place in memory of the writer's own, all without the GIL. The writing
thread takes the results in order, each as soon as it is there, and compresses
meanwhile instead of waiting. So order needs no sorting, and one core needs no
second thread.

That memory bounds how much waits here: PLACES_BYTES, but at least a place for each
thread. When all places are taken, images wait in the ring; when that is full
too, the newest are dropped and counted.

Two coders make LZ4 blocks: LZ4 itself, and ``byte_runs``, which is three to four times as
fast and as good on most detector images, but blind to anything except runs. So each block
of the image has its coder: whichever was better when both were tried last, on one image in
about JUDGED_EVERY. Threads share this without a lock: a count may go astray, never a pixel.

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
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.codecs import bitshuffle
from daq_core.codecs.byte_runs import MARGIN, STEP, compress_runs
from daq_core.codecs.shuffle import shuffle_block
from daq_core.kernels.compiling import (
    external,
    fetch_add,
    kernel,
    kernel_of,
    load_acquire,
    store_release,
    wake,
)
from daq_core.linux.futex import wait_for_change
from daq_core.linux.urgency import be_usual

Compression = Literal["none", "bitshuffle-lz4", "bitshuffle-zstd"]

BITSHUFFLE_FILTER = 32008
LZ4, ZSTD = 2, 3
"""How the HDF5 filter, and a kernel's `how`, call what follows the shuffle."""
ZSTD_LEVEL = 3
"""As hdf5plugin has it."""

LZ4_HASTE = 2
"""LZ4's acceleration: a sixth less CPU time than with 1, for files that are 1 to 2 % larger."""

JUDGED_EVERY = 32
"""Images for which a block keeps its coder, at least; twice as many at most."""
RUNS_MAY_COST = 32
"""A block keeps to its runs if they are larger than what LZ4 makes of it by one part in so many, or less."""

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


class Hand(NamedTuple):
    """A thread's own memory: of a shuffled block, of its runs, and, by address, of the codec."""

    block: npt.NDArray[np.uint8]
    runs: npt.NDArray[np.uint64]
    state: int


def new_hand(block_bytes: int, state: int) -> Hand:
    """Return what a thread needs for blocks of so many bytes, with the codec's state at that address."""
    return Hand(np.zeros(block_bytes + MARGIN, np.uint8), np.zeros(block_bytes // STEP + 2, np.uint64), state)


_HAND = types.NamedTuple((types.uint8[::1], types.uint64[::1], types.int64), Hand)


@kernel
def _compress(address: int, chunk: Any, how: Any, hand: Any, coders: Any) -> int:
    """Make a chunk of the pixels at an address; returns its bytes, 0 or less when the codec failed."""
    n_pixels, item_bytes, block = how[1], how[2], how[3]
    _put(chunk, 0, 8, n_pixels * item_bytes)
    _put(chunk, 8, 4, block * item_bytes)
    at = 12
    n_shuffled = n_pixels - n_pixels % bitshuffle.BLOCK_MULTIPLE
    for first in range(0, n_shuffled, block):
        n = min(block, n_shuffled - first)
        shuffle_block(address + first * item_bytes, hand.block.ctypes.data, n, item_bytes)
        size = _compress_block(n * item_bytes, chunk, at + 4, how, hand, coders, first // block)
        if size <= 0:
            return int(min(size, -1))
        _put(chunk, at, 4, size)
        at += 4 + size
    rest = (n_pixels - n_shuffled) * item_bytes
    _memmove(chunk.ctypes.data + at, address + n_shuffled * item_bytes, np.uintp(rest))
    return int(at + rest)


@kernel
def _compress_block(n_bytes: int, chunk: Any, at: int, how: Any, hand: Any, coders: Any, k: int) -> int:
    """Compress what is shuffled by the coder that suits it; returns its bytes, 0 or less when that failed."""
    if how[0] == ZSTD or n_bytes % STEP != 0:
        return _call_codec(n_bytes, chunk, at, how, hand)
    left = coders[k]
    if left == 0:
        of_lz4 = _call_codec(n_bytes, chunk, at, how, hand)
        of_runs = compress_runs(hand.block, n_bytes, chunk, at, hand.runs) - at
        left = JUDGED_EVERY + k % JUDGED_EVERY  # blocks are not judged anew all in one image
        if of_runs > of_lz4 + of_lz4 // RUNS_MAY_COST:
            left = -left
    if left > 0:
        coders[k] = left - 1
        return int(compress_runs(hand.block, n_bytes, chunk, at, hand.runs) - at)
    coders[k] = left + 1
    return _call_codec(n_bytes, chunk, at, how, hand)


@kernel
def _call_codec(n_bytes: int, chunk: Any, at: int, how: Any, hand: Any) -> int:
    """Compress what is shuffled with LZ4 or zstd; returns its bytes, 0 or less when that failed."""
    block, into, room = hand.block.ctypes.data, chunk.ctypes.data + at, chunk.shape[0] - at
    if how[0] == LZ4:
        most = np.int32(min(room, MAX_ROOM))
        return int(_lz4(hand.state, block, into, np.int32(n_bytes), most, np.int32(LZ4_HASTE)))
    return int(_zstd(hand.state, into, np.uintp(room), block, np.uintp(n_bytes), np.int32(how[4])))


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
        _HAND,
        types.int64,
    )
)
def compress_until(
    images: Any, places: Any, sizes: Any, claimed: Any, how: Any, coders: Any, hand: Any, wanted: int
) -> int:
    """Compress images that nobody has claimed, until one of them is done or all are claimed.

    Parameters
    ----------
    images  : (n,) int64, addresses of their pixels
    places  : (n or more, room) uint8, filled with chunks
    sizes   : (n,) int64, bytes of each chunk; 0 until it is done, negative when the codec failed
    claimed : (1,) int64, how many are claimed
    how     : (5,) int64: LZ4 or ZSTD, pixels of an image, bytes of a pixel, pixels of a block, level
    coders  : (blocks of an image,) int64: for how many images a block keeps to its runs (positive) or
              to LZ4 (negative); 0: both are to be tried
    hand    : Hand of this thread
    wanted  : int, the image that ends the work

    Returns
    -------
    int  its size; 0 while another thread is compressing it
    """
    while load_acquire(sizes, wanted) == 0:
        i = fetch_add(claimed, 0, 1)
        if i >= images.shape[0]:
            break
        store_release(sizes, i, _compress(images[i], places[i], how, hand, coders))
        wake(sizes, i)
    return int(load_acquire(sizes, wanted))


Batch = tuple[Any, Any, Any, Any]  # what compress_until takes, up to `claimed`


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
        room = bitshuffle.bound(n_pixels, dtype.itemsize, block, zstd=codec == ZSTD) + MARGIN
        self._coders = np.zeros(-(-n_pixels // block), np.int64)
        n_places = max(threads, min(PLACES_BYTES // room, max(ENOUGH_PLACES, 4 * threads)))
        # Pages that no chunk reaches are never touched; numpy would ask for huge ones.
        memory = mmap.mmap(-1, n_places * room)
        self._places = np.frombuffer(memory, np.uint8).reshape(n_places, room)
        new_state = bitshuffle.new_zstd_state if codec == ZSTD else bitshuffle.new_lz4_state
        self._states = [new_state() for _ in range(threads)]
        hands = [new_hand(block * dtype.itemsize, state.address) for state in self._states]
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
            while (size := compress_until(*batch, self._how, self._coders, self._hand, i)) == 0:
                wait_for_change(sizes, i, 0, WAIT_S)
            if size < 0:
                raise OSError(f"bitshuffle cannot compress an image: error {size}")
            yield self._places[i, :size]

    def _help(self, batches: queue.SimpleQueue[Batch], hand: Hand) -> None:
        """Compress what there is, batch by batch; a batch that others have finished is left at once."""
        be_usual()
        while True:
            batch = batches.get()
            compress_until(*batch, self._how, self._coders, hand, len(batch[0]) - 1)
