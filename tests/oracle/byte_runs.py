"""LZ4 blocks of runs of equal bytes, made and taken apart sequence by sequence."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple


class Sequence(NamedTuple):
    """Literals, and a match that follows them; the last sequence of a block has none (length 0)."""

    literals: bytes
    distance: int
    length: int


def sequences_of(block: bytes) -> list[Sequence]:
    """Return the runs of at least four bytes as matches: of an earlier run of zeros, or of their first byte.

    Neither the last five bytes are in a run, nor does a run begin in the last twelve.
    """
    found, done, at, zeros = [], 0, 0, b""
    runs = [len(list(group)) for _, group in groupby(block[:-5])]
    longest = 0
    for n in runs:
        start, end = at, at + n
        at = end
        if n < 4 or start >= len(block) - 12:
            continue
        if block[start] == 0 and n <= len(zeros):
            found.append(Sequence(block[done:start], start - longest, n))
        elif n > 4:
            found.append(Sequence(block[done : start + 1], 1, n - 1))
            if block[start] == 0:
                zeros, longest = block[start:end], start
        else:
            continue
        done = end
    return [*found, Sequence(block[done:], 0, 0)]


def encoded(sequences: list[Sequence]) -> bytes:
    """Return the LZ4 block of sequences."""
    out = bytearray()
    for literals, distance, length in sequences:
        n, m = len(literals), max(length - 4, 0)
        out.append(min(n, 15) << 4 | min(m, 15))
        out += _rest(n) + literals
        if distance:
            out += distance.to_bytes(2, "little") + _rest(m)
    return bytes(out)


def _rest(length: int) -> bytes:
    if length < 15:
        return b""
    more, last = divmod(length - 15, 255)
    return bytes([255] * more + [last])


def decoded(chunk: bytes) -> list[Sequence]:
    """Take an LZ4 block apart, as lz4_Block_format.md has it."""
    found, at = [], 0
    while at < len(chunk):
        token = chunk[at]
        n, at = _length(chunk, at + 1, token >> 4)
        literals, at = chunk[at : at + n], at + n
        assert len(literals) == n
        if at == len(chunk):
            return [*found, Sequence(literals, 0, 0)]
        distance = int.from_bytes(chunk[at : at + 2], "little")
        length, at = _length(chunk, at + 2, token & 15)
        found.append(Sequence(literals, distance, length + 4))
    raise AssertionError("the block ends with a match")


def _length(chunk: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while chunk[at] == 255:
            length, at = length + 255, at + 1
        length, at = length + chunk[at], at + 1
    return length, at
