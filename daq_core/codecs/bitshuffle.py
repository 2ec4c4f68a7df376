"""Bitshuffle and LZ4: decompressing into memory that is there already, and compressing.

The work is done by the library inside the hdf5plugin package, which is called
directly: HDF5 is not loaded, nothing is allocated, the GIL is free meanwhile. It
follows the block lengths in its input without being told where that ends, so
they are checked first.

Source of the headers: bsread's ``compression.py`` and ``compression.cpp``. Theirs
for bitshuffle is that of HDF5 filter 32008, a chunk of a compressed file, and
big-endian everywhere. Before LZ4 alone the Python package puts the size in
little-endian, whatever the pixels are; the C++ one has it in big-endian.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.kernels.compiling import kernel_of

BITSHUFFLE_HEADER = struct.Struct(">qi")
"""Bytes after decompression, bytes of a block (0: the library's choice); big-endian."""
LZ4_HEADER = struct.Struct("<I")
"""Bytes after decompression, little-endian as bsread's Python package has it; others send it big-endian."""
BLOCK_MULTIPLE = 8
"""Pixels are shuffled in eights; up to seven at the end of an image follow as they are."""
MAX_LZ4_BYTES = 0x7E000000
"""LZ4_MAX_INPUT_SIZE of lz4.h."""

_Bytes = npt.NDArray[np.uint8]


def _load_library() -> ctypes.CDLL:
    found = find_spec("hdf5plugin")  # importing it would load HDF5 and register its filters
    if found is None or found.origin is None:
        raise ImportError("hdf5plugin is not installed: it holds the bitshuffle library")
    return ctypes.CDLL(str(Path(found.origin).parent / "plugins" / "libh5bshuf.so"))


_library = _load_library()


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, name)
    function.restype, function.argtypes = result, arguments
    return function


_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_default_block_size = _function("bshuf_default_block_size", _size, _size)
_bitshuffle_bound = _function("bshuf_compress_lz4_bound", _size, _size, _size, _size)
_bitshuffle_zstd_bound = _function("bshuf_compress_zstd_bound", _size, _size, _size, _size)
compress_lz4_blocks = _function("bshuf_compress_lz4", ctypes.c_int64, _pointer, _pointer, _size, _size, _size)
"""(pixels, into, number of pixels, bytes of a pixel, pixels of a block) -> bytes; negative: an error."""
lz4_reusing = _function(
    "LZ4_compress_fast_extState_fastReset", _int, _pointer, _pointer, _pointer, _int, _int, _int
)
"""(state, pixels, into, bytes, room, acceleration) -> bytes; 0: an error."""
zstd_reusing = _function(
    "ZSTD_compressCCtx", ctypes.c_int64, _pointer, _pointer, _size, _pointer, _size, _int
)
"""(state, into, room, pixels, bytes, level) -> bytes; negative: an error."""
_decompress_bitshuffle = _function(
    "bshuf_decompress_lz4", ctypes.c_int64, _pointer, _pointer, _size, _size, _size
)
_lz4_state_bytes = _function("LZ4_sizeofState", _int)
_init_lz4_state = _function("LZ4_initStream", _pointer, _pointer, _size)
_new_zstd_context = _function("ZSTD_createCCtx", _pointer)
_free_zstd_context = _function("ZSTD_freeCCtx", _size, _pointer)
_lz4_bound = _function("LZ4_compressBound", _int, _int)
_compress_lz4 = _function("LZ4_compress_default", _int, _pointer, _pointer, _int, _int)
_decompress_lz4 = _function("LZ4_decompress_safe", _int, _pointer, _pointer, _int, _int)


class CodecState:
    """Memory of a codec that it uses again from block to block; of one thread."""

    def __init__(self, address: int, memory: Any = None, free: Callable[[int], Any] | None = None) -> None:
        self.address = address
        self._memory = memory
        if free is not None:
            weakref.finalize(self, free, address)


def new_lz4_state() -> CodecState:
    """Return a state for :data:`lz4_reusing`."""
    memory = np.zeros(int(_lz4_state_bytes()) // 8 + 1, np.uint64)
    if not _init_lz4_state(memory.ctypes.data, memory.nbytes):
        raise MemoryError("LZ4 does not take the memory for its state")
    return CodecState(memory.ctypes.data, memory)


def new_zstd_state() -> CodecState:
    """Return a state for :data:`zstd_reusing`."""
    address = _new_zstd_context()
    if not address:
        raise MemoryError("no memory for a context of zstd")
    return CodecState(address, free=_free_zstd_context)


def block_pixels(item_bytes: int) -> int:
    """Return how many pixels bitshuffle puts into a block when it is left to choose."""
    return int(_default_block_size(item_bytes))


def bound(n_pixels: int, item_bytes: int, block: int, *, zstd: bool = False) -> int:
    """Return the most bytes that so many pixels need, compressed, with their header."""
    most = _bitshuffle_zstd_bound if zstd else _bitshuffle_bound
    return BITSHUFFLE_HEADER.size + int(most(n_pixels, item_bytes, block))


@kernel_of(types.boolean(types.Array(types.uint8, 1, "C", readonly=True), types.int64, types.int64))
def blocks_fit(blocks: Any, n_blocks: int, n_raw: int) -> bool:
    """Tell whether compressed blocks, each after its length in 4 bytes, and raw bytes fill their memory.

    Parameters
    ----------
    blocks   : (bytes,) uint8, read-only
    n_blocks : int   compressed blocks
    n_raw    : int   bytes behind the last block
    """
    at = np.int64(0)
    for _ in range(n_blocks):
        if at + 4 > blocks.shape[0]:
            return False
        length = np.int64(0)
        for i in range(4):
            length = length << 8 | np.int64(blocks[at + i])
        at += 4 + length
    return bool(at + n_raw == blocks.shape[0])


def decompress_bitshuffle_lz4(stream: _Bytes, pixels: _Bytes, item_bytes: int) -> None:
    """Fill `pixels` from a header and bitshuffled, LZ4-compressed blocks.

    Parameters
    ----------
    stream : (bytes,) uint8
    pixels : (bytes,) uint8, contiguous; undefined when this raises
    item_bytes : of a pixel

    Raises
    ------
    ValueError
        The stream is damaged, or holds another number of bytes.
    """
    if len(stream) < BITSHUFFLE_HEADER.size:
        raise ValueError(f"bitshuffle_lz4 data of {len(stream)} bytes is shorter than its header")
    n_bytes, block_bytes = BITSHUFFLE_HEADER.unpack_from(stream.data)
    if n_bytes != len(pixels):
        raise ValueError(f"bitshuffle_lz4 data of {n_bytes} bytes uncompressed, an image has {len(pixels)}")
    block = block_bytes // item_bytes or block_pixels(item_bytes)
    if block_bytes < 0 or block_bytes % (item_bytes * BLOCK_MULTIPLE):
        raise ValueError(f"bitshuffle_lz4 data in blocks of {block_bytes} bytes: not eights of pixels")
    blocks = stream[BITSHUFFLE_HEADER.size :]
    n_pixels = len(pixels) // item_bytes
    n_raw = n_pixels % BLOCK_MULTIPLE
    n_blocks = -(-(n_pixels - n_raw) // block)
    if not blocks_fit(blocks, n_blocks, n_raw * item_bytes):
        raise ValueError("bitshuffle_lz4 data is cut off or damaged: its blocks do not add up")
    read = _decompress_bitshuffle(blocks.ctypes.data, pixels.ctypes.data, n_pixels, item_bytes, block)
    if read != len(blocks):
        raise ValueError("bitshuffle_lz4 data is damaged: it does not decompress")


def compress_bitshuffle_lz4(pixels: _Bytes, item_bytes: int) -> bytes:
    """Return what :func:`decompress_bitshuffle_lz4` takes, of (bytes,) uint8."""
    n_pixels, block = len(pixels) // item_bytes, block_pixels(item_bytes)
    into = np.empty(bound(n_pixels, item_bytes, block), np.uint8)
    BITSHUFFLE_HEADER.pack_into(into.data, 0, len(pixels), block * item_bytes)
    written = compress_lz4_blocks(
        pixels.ctypes.data, into.ctypes.data + BITSHUFFLE_HEADER.size, n_pixels, item_bytes, block
    )
    if written < 0:
        raise ValueError(f"bitshuffle cannot compress {len(pixels)} bytes: error {written}")
    return into[: BITSHUFFLE_HEADER.size + written].tobytes()


def lz4_sizes(stream: _Bytes) -> tuple[int, int]:
    """Return the size that LZ4 data begin with, little-endian and big-endian; ValueError without one."""
    if len(stream) < LZ4_HEADER.size:
        raise ValueError(f"lz4 data of {len(stream)} bytes is shorter than its header")
    head = stream[: LZ4_HEADER.size].tobytes()
    return int.from_bytes(head, "little"), int.from_bytes(head, "big")


def decompress_lz4(stream: _Bytes, pixels: _Bytes) -> None:
    """Fill `pixels` from a header and one LZ4 block; parameters and errors as for bitshuffle.

    The size in the header may be in either byte order: it is taken in the one in which it is right.
    """
    sizes = lz4_sizes(stream)
    n_bytes = len(pixels)
    if n_bytes not in sizes:
        raise ValueError(
            f"lz4 data of {sizes[0]} bytes uncompressed (big-endian: {sizes[1]}), an image has {n_bytes}"
        )
    block = stream[LZ4_HEADER.size :]
    if max(len(block), n_bytes) > MAX_LZ4_BYTES + MAX_LZ4_BYTES // 255 + 16:
        raise ValueError(f"lz4 data of {n_bytes} bytes uncompressed is more than LZ4 can hold")
    if _decompress_lz4(block.ctypes.data, pixels.ctypes.data, len(block), n_bytes) != n_bytes:
        raise ValueError("lz4 data is damaged: it does not decompress")


def compress_lz4(pixels: _Bytes) -> bytes:
    """Return what :func:`decompress_lz4` takes, of (bytes,) uint8."""
    if len(pixels) > MAX_LZ4_BYTES:
        raise ValueError(f"lz4 cannot compress {len(pixels)} bytes, {MAX_LZ4_BYTES} are the most")
    into = np.empty(LZ4_HEADER.size + _lz4_bound(len(pixels)), np.uint8)
    LZ4_HEADER.pack_into(into.data, 0, len(pixels))
    written = _compress_lz4(
        pixels.ctypes.data,
        into.ctypes.data + LZ4_HEADER.size,
        len(pixels),
        len(into) - LZ4_HEADER.size,
    )
    if written <= 0:
        raise ValueError(f"lz4 cannot compress {len(pixels)} bytes")
    return into[: LZ4_HEADER.size + written].tobytes()
