"""LZ4 blocks of runs: the kernel against its slow twin, the rules of the format, and LZ4's own decoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daq_core.codecs.bitshuffle import LZ4_HEADER, decompress_lz4
from daq_core.codecs.byte_runs import MARGIN, STEP, compress_runs
from tests.oracle.byte_runs import decoded, encoded, sequences_of

pytestmark = pytest.mark.kernels

MOST_STEPS = 20
RUNS = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 255]), st.one_of(st.integers(1, 8), st.integers(1, 700))),
    min_size=1,
    max_size=200,
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Runs of a few bytes, and noise, cut to a multiple of STEP."""
    n = draw(st.integers(1, MOST_STEPS)) * STEP
    noise = draw(st.integers(0, 2**32 - 1))
    some = b"".join(bytes([value]) * length for value, length in draw(RUNS))
    return (some + np.random.default_rng(noise).integers(0, 256, n, np.uint8).tobytes())[:n]


def compressed(block: bytes) -> bytes:
    """Return the kernel's block, which keeps to LZ4's bound, its room and its input."""
    n = len(block)
    bound = n + n // 255 + 16
    chunk = np.full(3 + bound + MARGIN + 1, 0xAA, np.uint8)
    same = np.full(n // STEP + 3, 0xAAAA, np.uint64)
    ends = set()
    for beyond in (0, 0xAA):  # what lies behind the block makes no difference
        memory = np.full(n + MARGIN, beyond, np.uint8)
        memory[:n] = np.frombuffer(block, np.uint8)
        end = compress_runs(memory, n, chunk, 3, same)
        ends.add(chunk[3:end].tobytes())
    assert end <= 3 + bound
    assert (chunk[:3] == 0xAA).all()
    assert chunk[-1] == 0xAA
    assert same[-1] == 0xAAAA
    (made,) = ends
    return made


def lz4_decoded(chunk: bytes, n_bytes: int) -> npt.NDArray[np.uint8]:
    back = np.empty(n_bytes, np.uint8)
    decompress_lz4(np.frombuffer(LZ4_HEADER.pack(n_bytes) + chunk, np.uint8), back)
    return back


@given(block=blocks())
@example(block=bytes(STEP))
@example(block=bytes(8192))
@example(block=b"\xff" * 8192)
@example(block=bytes(range(256)) * 32)
def test_the_kernel_does_what_its_twin_does(block: bytes) -> None:
    assert compressed(block) == encoded(sequences_of(block))


@given(block=blocks())
def test_lz4_reads_the_same_bytes_back(block: bytes) -> None:
    assert lz4_decoded(compressed(block), len(block)).tobytes() == block


@given(block=blocks())
def test_the_block_ends_as_the_format_demands(block: bytes) -> None:
    *matches, last = decoded(compressed(block))
    assert len(last.literals) >= 5
    at = 0
    for literals, distance, length in matches:
        at += len(literals)
        assert 1 <= distance <= at
        assert at <= len(block) - 12
        at += length
    assert at + len(last.literals) == len(block)
