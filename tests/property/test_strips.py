"""Strips of any length, at any address, with and without a gap, are what the plain formula says, and no more.

Also runs with NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from daq_core.kernels import strips
from daq_core.kernels.compiling import JIT, finish_stores, kernel_of
from daq_core.kernels.loading import load_kernels

pytestmark = pytest.mark.kernels

GUARD = 256
BYTES = types.uint8[::1]

KINDS = {  # name: bits on the wire, bytes in the image, mirrored
    "copied": (8, 1, False),
    "mirrored, 1 byte": (8, 1, True),
    "mirrored, 2 bytes": (16, 2, True),
    "mirrored, 4 bytes": (32, 4, True),
    "4 bit": (4, 1, False),
    "4 bit, mirrored": (4, 1, True),
    "12 bit": (12, 2, False),
    "12 bit, mirrored": (12, 2, True),
}


@kernel_of(
    types.void(types.int64, BYTES, types.int64, BYTES, types.int64, types.int64, types.int64, types.int64)
)
def fill(kind: int, target: Any, at: int, source: Any, begin: int, n: int, seam: int, gap: int) -> None:
    """Fill a strip by the operation of a number, that of its place in KINDS."""
    strips.expect_strip(target, at, n)
    if kind == 0:
        strips.copy_strip(target, at, source, begin, n, seam, gap)
    elif kind == 1:
        strips.mirror_strip_1(target, at, source, begin, n, seam, gap)
    elif kind == 2:
        strips.mirror_strip_2(target, at, source, begin, n, seam, gap)
    elif kind == 3:
        strips.mirror_strip_4(target, at, source, begin, n, seam, gap)
    elif kind == 4:
        strips.unpack_4(target, at, source, begin, n, seam, gap)
    elif kind == 5:
        strips.unpack_4_mirrored(target, at, source, begin, n, seam, gap)
    elif kind == 6:
        strips.unpack_12(target, at, source, begin, n, seam, gap)
    else:
        strips.unpack_12_mirrored(target, at, source, begin, n, seam, gap)
    finish_stores()


def row_of(wire: npt.NDArray[np.uint8], bits: int, item: int, seam: int, gap: int) -> list[int]:
    """Return the pixels of a row, the gap as zeros: bit by bit, the lowest first; seam and gap in pixels."""
    each = np.unpackbits(wire, bitorder="little").reshape(-1, bits).tolist()
    pixels = [sum(bit << place for place, bit in enumerate(pixel)) for pixel in each]
    return pixels[:seam] + [0] * gap + pixels[seam:]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=150 if JIT else 20, deadline=None)
def test_a_strip_is_filled_by_its_formula_and_nothing_around_it(kind: str, data: st.DataObject) -> None:
    load_kernels()
    bits, item, mirrored = KINDS[kind]
    n_pixels = 2 * data.draw(st.integers(strips.LINE // item // 2, 600 // item), label="pixels / 2")
    gap = data.draw(st.sampled_from([0, 2]), label="gap")
    seam = 2 * data.draw(st.integers(1, n_pixels // 2 - 1), label="seam / 2") if gap else n_pixels
    at = GUARD + item * data.draw(st.integers(0, strips.LINE), label="at")
    begin = GUARD + data.draw(st.integers(0, 9), label="begin")
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    wire = random.integers(0, 256, n_pixels * bits // 8, np.uint8)
    source = random.integers(0, 256, 4096, np.uint8)
    source[begin : begin + len(wire)] = wire
    n = (n_pixels + gap) * item
    memory = np.full(4096 + strips.LINE, 0xA5, np.uint8)
    target = memory[-memory.ctypes.data % strips.LINE :][:4096]

    fill(
        list(KINDS).index(kind), target, at, source, begin, n, (seam if gap else n_pixels) * item, gap * item
    )

    expected = row_of(wire, bits, item, seam, gap)[:: -1 if mirrored else 1]
    assert target[at : at + n].view(f"u{item}").tolist() == expected
    assert (target[:at] == 0xA5).all()
    assert (target[at + n :] == 0xA5).all()
