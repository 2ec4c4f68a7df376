"""Bitshuffle's transposition of bits, compiled for the processor it runs on.

Row r of the result holds bit r of every pixel of a block, first pixel in the
lowest bit, so that bits that rarely differ lie together. hdf5plugin's library is
built for any processor (SSE2) and needs a third of the time of compressing for
this; here the compiler uses what there is (AVX2, AVX-512).

Source: bitshuffle's ``bitshuffle_core.c``, ``bshuf_trans_bit_elem_scal``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from daq_core.kernels.compiling import JIT, kernel

LANES, FEW_LANES = 64, 8
"""Pixels that are transposed at once, and those at the end of a block: its size is a multiple of eight."""

_intrinsic: Callable[[Any], Any] = intrinsic


def _transposing(bits: int, lanes: int) -> Any:
    """Return (source, target, row_bytes): put the bits of some pixels, by address, into `bits` rows."""
    if not JIT:
        return _slowly_transposing(bits, lanes)

    @_intrinsic
    def transpose(typing_context: Any, source: Any, target: Any, row_bytes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, target, row_bytes = arguments
            of_pixels, of_bytes = (ir.VectorType(ir.IntType(n), lanes) for n in (bits, 8))
            word, address = ir.IntType(lanes), row_bytes.type
            pixels = builder.load(builder.inttoptr(source, of_pixels.as_pointer()), align=1)
            for plane in range(0, bits, 8):
                some = builder.lshr(pixels, ir.Constant(of_pixels, [plane] * lanes))
                some = builder.trunc(some, of_bytes) if bits > 8 else some
                for bit in reversed(range(8)):  # the highest bit of a byte is its sign
                    signs = builder.icmp_signed("<", some, ir.Constant(of_bytes, [0] * lanes))
                    offset = builder.mul(row_bytes, ir.Constant(address, plane + bit))
                    place = builder.inttoptr(builder.add(target, offset), word.as_pointer())
                    builder.store(builder.bitcast(signs, word), place, align=1)
                    some = builder.add(some, some)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), generate

    return transpose


def _slowly_transposing(bits: int, lanes: int) -> Any:
    def transpose(source: int, target: int, row_bytes: int) -> None:
        pixels = np.frombuffer(ctypes.string_at(int(source), lanes * bits // 8), f"<u{bits // 8}")
        for bit in range(bits):
            row = np.packbits(pixels >> bit & 1, bitorder="little").tobytes()
            ctypes.memmove(int(target + bit * row_bytes), row, len(row))

    return transpose


_transpose_8, _transpose_8_few = _transposing(8, LANES), _transposing(8, FEW_LANES)
_transpose_16, _transpose_16_few = _transposing(16, LANES), _transposing(16, FEW_LANES)
_transpose_32, _transpose_32_few = _transposing(32, LANES), _transposing(32, FEW_LANES)


@kernel
def shuffle_block(source: int, target: int, n_pixels: int, item_bytes: int) -> None:
    """Shuffle a block of 1-, 2- or 4-byte pixels; both addresses hold n_pixels × item_bytes bytes.

    `n_pixels` is a multiple of eight.
    """
    row_bytes = n_pixels // 8
    whole = n_pixels // LANES * LANES
    if item_bytes == 1:
        for i in range(0, whole, LANES):
            _transpose_8(source + i, target + i // 8, row_bytes)
        for i in range(whole, n_pixels, FEW_LANES):
            _transpose_8_few(source + i, target + i // 8, row_bytes)
    elif item_bytes == 2:
        for i in range(0, whole, LANES):
            _transpose_16(source + i * 2, target + i // 8, row_bytes)
        for i in range(whole, n_pixels, FEW_LANES):
            _transpose_16_few(source + i * 2, target + i // 8, row_bytes)
    else:
        for i in range(0, whole, LANES):
            _transpose_32(source + i * 4, target + i // 8, row_bytes)
        for i in range(whole, n_pixels, FEW_LANES):
            _transpose_32_few(source + i * 4, target + i // 8, row_bytes)
