"""The kernel that transposes bits, against its slow twin and against bitshuffle's own inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.codecs.shuffle import LANES, shuffle_block
from tests.oracle.shuffle import shuffled

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
@given(data=st.data(), eights=st.integers(1, 3 * LANES // 8))
def test_the_kernel_does_what_its_twin_does_and_writes_nothing_else(
    data: st.DataObject, dtype: str, eights: int
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    n_bytes = eights * 8 * np.dtype(dtype).itemsize
    room = np.random.default_rng(seed).integers(0, 256, n_bytes + 2, np.uint8)
    target = np.full(n_bytes + 2, 0xAA, np.uint8)
    pixels = room[1:-1].copy().view(dtype)  # the kernel is given an odd address
    shuffle_block(room.ctypes.data + 1, target.ctypes.data + 1, len(pixels), pixels.itemsize)
    assert target[1:-1].tobytes() == shuffled(pixels).tobytes()
    assert (target[0], target[-1]) == (0xAA, 0xAA)
