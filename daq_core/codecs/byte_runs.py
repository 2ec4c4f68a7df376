"""An LZ4 block made of nothing but runs of equal bytes, compiled.

Theory of operation. Shuffled detector images are rows of noise, the low bits of each
pixel, and long runs of zeros between what few high bits are set. There LZ4's search
for any repetition finds hardly more than those runs, and needs three to four times
as long as looking at 64 bytes at once for runs alone. ``daq_core.codecs.compressor``
tries both on a block now and then, and keeps to what does better.

A run of n equal bytes becomes one byte and a match at distance 1 of the n - 1 others.
A run of zeros that is no longer than an earlier one becomes a match of that one,
which saves its first byte.

Source: ``lz4_Block_format.md`` of LZ4. A block is a row of sequences: a token with two
lengths of 4 bits, what is left of the first, literals, the distance in two bytes, what is
left of the second. The last five bytes are literals, and the last match starts twelve bytes before the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from daq_core.kernels.compiling import JIT, copy_bytes, kernel

STEP = 64
"""Bytes that are compared at once: of a block that is a multiple of it."""
MARGIN = STEP
"""Bytes behind a block, and behind a chunk, that are read and written beyond their ends."""

_SHORTEST = 4  # a match
_LAST_MATCH, _LAST_LITERALS = 12, 5  # bytes from the end
_IN_TOKEN = 15  # and more: what is left of a length follows
_FITTING = 16  # literals that are copied at once
_ALL = np.uint64(2**64 - 1)
_1, _2, _62, _63 = np.uint64(1), np.uint64(2), np.uint64(62), np.uint64(63)  # bits

_intrinsic: Callable[[Any], Any] = intrinsic

if JIT:

    @_intrinsic
    def _same_as_next(typing_context: Any, block: Any, first: Any) -> Any:
        """Return 64 bits: which of the bytes from `first` on equal the byte behind them."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            of_bytes = ir.VectorType(ir.IntType(8), STEP)
            start = context.make_array(block)(context, builder, arguments[0]).data
            here = builder.gep(start, [arguments[1]])
            behind = builder.gep(here, [ir.Constant(arguments[1].type, 1)])
            some, others = (
                builder.load(builder.bitcast(place, of_bytes.as_pointer()), align=1)
                for place in (here, behind)
            )
            return builder.bitcast(builder.icmp_unsigned("==", some, others), ir.IntType(STEP))

        return types.uint64(block, types.intp), generate

    @_intrinsic
    def _trailing_zeros(typing_context: Any, word: Any) -> Any:
        """Return the number of the lowest bit that is set in a word that is not 0."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), generate

else:

    def _same_as_next(block: Any, first: int) -> Any:
        equal = block[first : first + STEP] == block[first + 1 : first + STEP + 1]
        return np.packbits(equal, bitorder="little").view("<u8")[0]

    def _trailing_zeros(word: Any) -> int:
        return (int(word) & -int(word)).bit_length() - 1


@kernel
def compress_runs(block: Any, n_bytes: int, chunk: Any, at: int, same: Any) -> int:
    """Make an LZ4 block of the runs in a block of bytes; returns where it ends in the chunk.

    Parameters
    ----------
    block   : (n_bytes + MARGIN or more,) uint8
    n_bytes : int, a multiple of STEP, 64 KiB at most
    chunk   : (bytes,) uint8, filled from `at` on; it has to have room for LZ4_compressBound(n_bytes)
              and MARGIN bytes more, of which any may change
    same    : (n_bytes / STEP + 2 or more,) uint64, scratch
    """
    _find_runs(block, n_bytes, same)
    done, zeros, most_zeros = 0, 0, 0  # bytes that are in the chunk; where the longest run of zeros is
    start = _next_run(same, 0)
    while start < n_bytes - _LAST_MATCH:
        end = _end_of_run(same, start)
        n, is_zero = end - start, block[start] == 0
        if is_zero and n <= most_zeros:
            distance = start - zeros
        else:
            if is_zero and n > _SHORTEST:
                zeros, most_zeros = start, n
            start, distance = start + 1, 1
        left = end - start - _SHORTEST
        if left >= 0:
            at = _put_literals(block, done, start, chunk, at, min(left, _IN_TOKEN))
            chunk[at] = np.uint8(distance & 0xFF)
            chunk[at + 1] = np.uint8(distance >> 8)
            at += 2
            if left >= _IN_TOKEN:
                at = _put_rest(left, chunk, at)
            done = end
        start = _next_run(same, end)
    return _put_literals(block, done, n_bytes, chunk, at, 0)


@kernel
def _find_runs(block: Any, n_bytes: int, same: Any) -> None:
    """Note which bytes equal the next one; one word more ends every search."""
    n_words = n_bytes // STEP
    for k in range(n_words):
        same[k] = _same_as_next(block, k * STEP)
    same[n_words - 1] &= _ALL >> np.uint64(_LAST_LITERALS + 1)  # these are in no run
    same[n_words] = _ALL


@kernel
def _next_run(same: Any, first: int) -> int:
    """Return where four equal bytes begin, at `first` or later; behind the last of them, any place there."""
    k = first >> 6
    begins = _fours(same, k) & (_ALL << np.uint64(first & 63))
    while begins == 0:
        k += 1
        begins = _fours(same, k)
    return k * STEP + _trailing_zeros(begins)


@kernel
def _fours(same: Any, k: int) -> Any:
    """Return 64 bits: which bytes equal the three behind them."""
    here, behind = same[k], same[k + 1]
    return here & (here >> _1 | behind << _63) & (here >> _2 | behind << _62)


@kernel
def _end_of_run(same: Any, start: int) -> int:
    """Return where the run ends, the first byte that is not of it."""
    k = start >> 6
    differs = ~same[k] >> np.uint64(start & 63)
    if differs != 0:
        return start + _trailing_zeros(differs) + 1
    k += 1
    while same[k] == _ALL:
        k += 1
    return k * STEP + _trailing_zeros(~same[k]) + 1


@kernel
def _put_literals(block: Any, first: int, end: int, chunk: Any, at: int, of_match: int) -> int:
    """Add a token, with the 4 bits `of_match` of a match that follows, and literals."""
    n = end - first
    chunk[at] = np.uint8(min(n, _IN_TOKEN) << 4 | of_match)
    at += 1
    if n >= _IN_TOKEN:
        at = _put_rest(n, chunk, at)
    copy_bytes(chunk, at, block, first, _FITTING)
    copied = _FITTING
    while copied < n:
        copy_bytes(chunk, at + copied, block, first + copied, _FITTING)
        copied += _FITTING
    return at + n


@kernel
def _put_rest(length: int, chunk: Any, at: int) -> int:
    """Add what is left of a length, _IN_TOKEN or more, that does not fit into a token."""
    length -= _IN_TOKEN
    while length >= 255:
        chunk[at] = np.uint8(255)
        at += 1
        length -= 255
    chunk[at] = np.uint8(length)
    return at + 1
