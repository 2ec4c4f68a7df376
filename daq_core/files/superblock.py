"""The first block of an HDF5 file: whether it is marked as being written, and how long the file says it is.

Source: HDF5 File Format Specification 3.0, II.A "Superblock" (versions 2 and 3)
and VI "Appendix A" (its checksum: Jenkins' lookup3, public domain).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from daq_core.files.layout import SIGNATURE

SUPERBLOCK = struct.Struct("<8s B B B B Q Q Q Q L")
"""Signature, version, bytes of an offset and of a length, consistency flags; then the
addresses: base, extension, end of file, root group; and the checksum of all before it."""

OPEN_FOR_WRITE, OPEN_FOR_SWMR = 0x01, 0x04  # consistency flags


class NotOurs(Exception):
    """Why a file is not one that this DAQ can do anything about."""


@dataclass(frozen=True)
class Superblock:
    version: int
    flags: int
    base: int
    extension: int
    end_of_file: int
    root: int

    def closed(self, end_of_file: int) -> Superblock:
        """The same of a file that was closed and is `end_of_file` bytes long."""
        return Superblock(self.version, 0, self.base, self.extension, end_of_file, self.root)

    def packed(self) -> bytes:
        block = SUPERBLOCK.pack(
            SIGNATURE, self.version, 8, 8, self.flags,
            self.base, self.extension, self.end_of_file, self.root, 0,
        )[:-4]  # fmt: skip
        return block + struct.pack("<L", lookup3(block))


def read_superblock(fd: int) -> Superblock:
    """Read the superblock of a file of this DAQ; NotOurs says why it is none."""
    block = os.pread(fd, SUPERBLOCK.size, 0)
    if len(block) < SUPERBLOCK.size or not block.startswith(SIGNATURE):
        raise NotOurs("it is not an HDF5 file, or its writer ended before there was anything in it")
    _, version, *sizes, flags, base, extension, end_of_file, root, checksum = SUPERBLOCK.unpack(block)
    if version != 3 or sizes != [8, 8] or base != 0:
        raise NotOurs("it is not a file of this DAQ")
    if checksum != lookup3(block[:-4]):
        raise NotOurs("its first block is damaged")
    return Superblock(version, flags, base, extension, end_of_file, root)


def lookup3(data: bytes) -> int:
    """Return Bob Jenkins' ``hashlittle(data, length, 0)``, 32 bits: the checksum of HDF5 metadata."""
    mask = 0xFFFFFFFF

    def rotated(word: int, bits: int) -> int:
        return (word << bits | word >> (32 - bits)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    n_blocks = (len(data) + 11) // 12
    words: tuple[int, ...] = struct.unpack(f"<{3 * n_blocks}L", data.ljust(12 * n_blocks, b"\0"))
    for index in range(0, len(words) - 3, 3):
        a, b, c = (a + words[index]) & mask, (b + words[index + 1]) & mask, (c + words[index + 2]) & mask
        a = (a - c & mask) ^ rotated(c, 4)
        c = c + b & mask
        b = (b - a & mask) ^ rotated(a, 6)
        a = a + c & mask
        c = (c - b & mask) ^ rotated(b, 8)
        b = b + a & mask
        a = (a - c & mask) ^ rotated(c, 16)
        c = c + b & mask
        b = (b - a & mask) ^ rotated(a, 19)
        a = a + c & mask
        c = (c - b & mask) ^ rotated(b, 4)
        b = b + a & mask
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    for bits_c, bits_a, bits_b in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - rotated(b, bits_c)) & mask
        a = ((a ^ c) - rotated(c, bits_a)) & mask
        b = ((b ^ a) - rotated(a, bits_b)) & mask
    return ((c ^ b) - rotated(b, 24)) & mask
