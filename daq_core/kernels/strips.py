"""Strips: pixels that lie side by side in a row, copied, mirrored or unpacked by whole cache lines.

This is where the receiver's time goes, so each operation is written as vector code
(LLVM cuts it to what the processor has). Whole cache lines are written past the
cache: an image is not read before it is complete, and a ring of a GiB is not in the
cache when its turn comes again, so fetching its old content first is half of the
traffic for nothing. It also makes no difference any more whether memory is filled
upwards or, for a flipped module, downwards. See docs/explanations/performance.md.

A line that a strip fills only in part is written the ordinary way, and so is the
line beside it, because the two stores overlap: a store past the cache into a line
that is in the cache costs ten times one that is not. The first line of each strip and of each page is
written the ordinary way too: :func:`expect_strip` fetches it beforehand, and with it the
translation of the page's address, for which a store would have to wait. Stores past the cache are not
ordered by ``store_release``: call :func:`daq_core.kernels.compiling.finish_stores` before
anybody is told of the pixels.

All take ``(target, at, source, begin, n, seam, gap)``: n bytes of pixels as they are
in the image, at least LINE of them, go to the uint8 array `target` from byte `at`
on; the wire's bytes are in the uint8 array `source` from byte `begin` on. Of the n,
the `gap` bytes from byte `seam` on are between two chips, not on the wire, and
become 0; without a gap, `seam` is n. Mirrored: the first pixel on the wire becomes
the last one in memory. Around a seam up to as many bytes of the source as the gap
would have are read before `begin` and after the end; they have no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from daq_core.kernels.compiling import JIT, intrinsic

LINE = 64
"""Bytes of a cache line."""
PAGE = 4096

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)

Line = Callable[[Any, Any], Any]
"""(builder, offset) -> LINE bytes of a strip from byte `offset` on, as they are in the image."""
Unpacked = Callable[[Any, Any, Any], Any]
"""(builder, source pointer, offset) -> the same, of a strip without a gap."""


def _load(builder: Any, pointer: Any, offset: Any, n: int) -> Any:
    """Load n bytes from anywhere."""
    vector = ir.VectorType(_I8, n)
    place = builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())
    return builder.load(place, align=1)


def _shuffle(builder: Any, one: Any, other: Any, picked: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(picked)), picked))


def _as_bytes(builder: Any, value: Any) -> Any:
    return builder.bitcast(value, ir.VectorType(_I8, LINE))


def _copied(builder: Any, source: Any, offset: Any) -> Any:
    return _load(builder, source, offset, LINE)


def _unpacked_4(builder: Any, source: Any, offset: Any) -> Any:
    """Two pixels a byte, the first in the low nibble."""
    packed = _load(builder, source, builder.ashr(offset, _I64(1)), LINE // 2)
    low = builder.and_(packed, ir.Constant(packed.type, [15] * (LINE // 2)))
    high = builder.lshr(packed, ir.Constant(packed.type, [4] * (LINE // 2)))
    return _shuffle(builder, low, high, [i // 2 + i % 2 * (LINE // 2) for i in range(LINE)])


def _unpacked_12(builder: Any, source: Any, offset: Any) -> Any:
    """Two pixels in three bytes: p0 = b0 | (b1 & 15) << 8, p1 = b1 >> 4 | b2 << 4."""
    begin = builder.ashr(builder.mul(offset, _I64(3)), _I64(2))
    # Twelve bytes are eight pixels; the last load begins earlier, to end with the line's last byte.
    quarters = []
    for first, skipped in ((0, 0), (12, 0), (24, 0), (32, 4)):
        packed = _load(builder, source, builder.add(begin, _I64(first)), 16)
        pairs = [skipped + i // 4 * 3 + (0, 1, 1, 2)[i % 4] for i in range(16)]
        quarters.append(_shuffle(builder, packed, packed, pairs))
    halves = [_shuffle(builder, quarters[i], quarters[i + 1], list(range(32))) for i in (0, 2)]
    pixels = builder.bitcast(
        _shuffle(builder, halves[0], halves[1], list(range(64))), ir.VectorType(_I16, 32)
    )
    shifted = builder.lshr(pixels, ir.Constant(pixels.type, [0, 4] * 16))
    return _as_bytes(builder, builder.and_(shifted, ir.Constant(pixels.type, [0xFFF] * 32)))


def _with_gap(unpacked: Unpacked, source: Any, seam: Any, gap: Any) -> Line:
    """Return the lines of a strip of two chips."""

    def line(builder: Any, offset: Any) -> Any:
        """Of both chips where the line lies across the seam, else of one."""
        behind = builder.sub(offset, gap)
        ends_before = builder.icmp_signed("<=", builder.add(offset, _I64(LINE)), seam)
        begins_after = builder.icmp_signed(">=", behind, seam)
        one_side = unpacked(builder, source, builder.select(begins_after, behind, offset))
        before = builder.basic_block
        with builder.if_then(builder.not_(builder.or_(ends_before, begins_after)), likely=False):
            other_side = unpacked(builder, source, behind)
            n_before = builder.trunc(builder.sub(seam, offset), _I8)
            n_until = builder.trunc(builder.sub(builder.add(seam, gap), offset), _I8)
            numbers = ir.Constant(one_side.type, list(range(LINE)))
            is_before = builder.icmp_signed("<", numbers, _broadcast(builder, n_before))
            is_after = builder.icmp_signed(">=", numbers, _broadcast(builder, n_until))
            nothing = ir.Constant(one_side.type, [0] * LINE)
            rest = builder.select(is_after, other_side, nothing)
            across = builder.select(is_before, one_side, rest)
            blended = builder.basic_block
        value = builder.phi(one_side.type)
        value.add_incoming(one_side, before)
        value.add_incoming(across, blended)
        return value

    return line


def _broadcast(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, LINE)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
    return _shuffle(builder, first, first, [0] * LINE)


def _mirrored(line: Line, n: Any, item: int) -> Line:
    """Return the lines of a strip of n bytes, turned round in pixels of `item` bytes."""

    def turned(builder: Any, offset: Any) -> Any:
        value = line(builder, builder.sub(builder.sub(n, _I64(LINE)), offset))
        n_pixels = LINE // item
        pixels = builder.bitcast(value, ir.VectorType(ir.IntType(8 * item), n_pixels))
        return _as_bytes(builder, _shuffle(builder, pixels, pixels, list(range(n_pixels - 1, -1, -1))))

    return turned


def _fill(builder: Any, target: Any, n: Any, line: Line, group: int) -> None:
    """Write n bytes to `target`, a line at a time; lines can only begin at multiples of `group` bytes."""

    def put(offset: Any, *, past_the_cache: bool = False) -> None:
        value = line(builder, offset)
        place = builder.bitcast(builder.gep(target, [offset]), value.type.as_pointer())
        store = builder.store(value, place, align=LINE if past_the_cache else 1)
        if past_the_cache:
            store.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))

    zero, one_line = _I64(0), _I64(LINE)
    last = builder.sub(n, one_line)
    address = builder.ptrtoint(target, _I64)
    head = builder.and_(builder.neg(address), _I64(LINE - 1))
    has_whole_lines = builder.icmp_unsigned(">=", n, _I64(2 * LINE))
    in_step = builder.icmp_unsigned("==", builder.and_(head, _I64(group - 1)), zero)
    with builder.if_else(builder.and_(has_whole_lines, in_step)) as (aligned, otherwise):
        with aligned:
            has_head = builder.icmp_unsigned("!=", head, zero)
            put(zero)
            with builder.if_then(has_head):
                put(head)
            tail = builder.and_(builder.sub(n, head), _I64(LINE - 1))
            has_tail = builder.icmp_unsigned("!=", tail, zero)
            begin = builder.add(head, one_line)
            end = builder.sub(builder.sub(n, tail), builder.select(has_tail, one_line, zero))
            with cgutils.for_range_slice(builder, begin, end, one_line, _I64) as (offset, _):
                in_page = builder.and_(builder.add(address, offset), _I64(PAGE - 1))
                begins_page = builder.icmp_unsigned("==", in_page, zero)
                with builder.if_else(begins_page, likely=False) as (first_of_page, others):
                    with first_of_page:
                        put(offset)
                    with others:
                        put(offset, past_the_cache=True)
            with builder.if_then(has_tail):
                put(end)
                put(last)
        with otherwise:
            with cgutils.for_range_slice(builder, zero, last, one_line, _I64) as (offset, _):
                put(offset)
            put(last)


def _strip(unpacked: Unpacked, group: int, mirrored_item: int = 0) -> Any:
    """Return the operation, callable from kernels, that fills a strip with such lines."""

    def strip(
        typing_context: Any, target: Any, at: Any, source: Any, begin: Any, n: Any, seam: Any, gap: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            into, into_offset, out_of, out_of_offset, n_bytes, seam_at, gap_bytes = arguments
            into = context.make_array(target)(context, builder, into).data
            out_of = context.make_array(source)(context, builder, out_of).data
            out_of = builder.gep(out_of, [out_of_offset])
            line = _with_gap(unpacked, out_of, seam_at, gap_bytes)
            if mirrored_item:
                line = _mirrored(line, n_bytes, mirrored_item)
            _fill(builder, builder.gep(into, [into_offset]), n_bytes, line, group)
            return context.get_dummy_value()

        size = types.intp
        return types.void(target, size, source, size, size, size, size), generate

    return intrinsic(strip)


if JIT:
    copy_strip = _strip(_copied, 1)
    mirror_strip_1 = _strip(_copied, 1, 1)
    mirror_strip_2 = _strip(_copied, 2, 2)
    mirror_strip_4 = _strip(_copied, 4, 4)
    unpack_4 = _strip(_unpacked_4, 2)
    unpack_4_mirrored = _strip(_unpacked_4, 2, 1)
    unpack_12 = _strip(_unpacked_12, 4)
    unpack_12_mirrored = _strip(_unpacked_12, 4, 2)

    @intrinsic
    def expect_strip(typing_context: Any, target: Any, at: Any, n: Any) -> Any:
        """Fetch what a strip of n bytes will write the ordinary way; it may lie outside of `target`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            into = context.make_array(target)(context, builder, arguments[0]).data
            into = builder.gep(into, [arguments[1]])
            kind = ir.FunctionType(ir.VoidType(), [into.type, _I32, _I32, _I32])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            n_bytes = arguments[2]

            def fetch(offset: Any) -> None:
                builder.call(prefetch, [builder.gep(into, [offset]), _I32(1), _I32(3), _I32(1)])

            def expect(is_partial: Any, *offsets: Any) -> None:
                with builder.if_then(builder.icmp_unsigned("!=", is_partial, _I64(0))):
                    for offset in offsets:
                        fetch(offset)

            begin = builder.ptrtoint(into, _I64)
            end = builder.add(begin, n_bytes)
            fetch(_I64(0))
            expect(builder.and_(begin, _I64(LINE - 1)), _I64(LINE))
            behind = (builder.sub(n_bytes, _I64(2 * LINE)), builder.sub(n_bytes, _I64(1)))
            expect(builder.and_(end, _I64(LINE - 1)), *behind)
            first_page = builder.and_(builder.neg(begin), _I64(PAGE - 1))
            with cgutils.for_range_slice(builder, first_page, n_bytes, _I64(PAGE), _I64) as (offset, _):
                fetch(offset)
            return context.get_dummy_value()

        return types.void(target, types.intp, types.intp), generate

else:

    def expect_strip(target: Any, at: int, n: int) -> None:
        pass

    def copy_strip(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        assert n >= LINE
        end = begin + n - gap
        target[at : at + seam] = source[begin : begin + seam]
        target[at + seam : at + seam + gap] = 0
        target[at + seam + gap : at + n] = source[begin + seam : end]

    def mirror_strip_1(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        _mirror_strip(target, at, source, begin, n, seam, gap, np.uint8)

    def mirror_strip_2(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        _mirror_strip(target, at, source, begin, n, seam, gap, np.uint16)

    def mirror_strip_4(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        _mirror_strip(target, at, source, begin, n, seam, gap, np.uint32)

    def _mirror_strip(
        target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int, item: Any
    ) -> None:
        row = np.empty(n, np.uint8)
        copy_strip(row, 0, source, begin, n, seam, gap)
        target[at : at + n] = row.view(item)[::-1].copy().view(np.uint8)

    def unpack_4(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        packed = source[begin : begin + (n - gap) // 2]
        pixels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)
        copy_strip(target, at, pixels, 0, n, seam, gap)

    def unpack_4_mirrored(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        row = np.empty(n, np.uint8)
        unpack_4(row, 0, source, begin, n, seam, gap)
        mirror_strip_1(target, at, row, 0, n, n, 0)

    def unpack_12(target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
        b0, b1, b2 = source[begin : begin + (n - gap) * 3 // 4].reshape(-1, 3).astype(np.uint16).T
        pixels = np.stack([b0 | (b1 & 15) << 8, b1 >> 4 | b2 << 4], axis=-1).reshape(-1)
        copy_strip(target, at, pixels.view(np.uint8), 0, n, seam, gap)

    def unpack_12_mirrored(
        target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int
    ) -> None:
        row = np.empty(n, np.uint8)
        unpack_12(row, 0, source, begin, n, seam, gap)
        mirror_strip_2(target, at, row, 0, n, n, 0)
