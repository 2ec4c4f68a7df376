"""Shared memory as numpy sees it: mapped so that huge pages can be, and its pages fetched at once."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy.typing as npt

from daq_core.linux.libc import libc

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FIXED, _MAP_FAILED = 0x10, 2**64 - 1

HUGE_BYTES = 2 * 2**20
"""A huge page. One entry maps it into a process, where its small pages need 512."""


class Mapping:
    """A file mapped at a multiple of a huge page, until no array looks at it any more.

    Only so can huge pages be mapped as such (``daq_core.ring.prefault`` makes them): a writer has
    the slots of its run for nothing then, else mapping them costs half as much as compressing.
    """

    def __init__(self, descriptor: int, n_bytes: int) -> None:
        self._length = n_bytes + HUGE_BYTES
        nowhere = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._room = self._map(None, self._length, 0, nowhere, -1)
        start = -(-self._room // HUGE_BYTES) * HUGE_BYTES
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._map(start, n_bytes, protection, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
        self.__array_interface__ = {
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (start, False),
            "version": 3,
        }

    def _map(self, at: int | None, length: int, protection: int, flags: int, descriptor: int) -> int:
        address = int(libc.mmap(at, length, protection, flags, descriptor, 0))
        if address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, f"the image ring cannot be mapped: {os.strerror(error)}")
        return address

    def __del__(self) -> None:
        if hasattr(self, "_room"):
            libc.munmap(self._room, self._length)


_MADV_POPULATE_READ = 22  # since Linux 5.14; an older one refuses, and pages are mapped one by one


def map_pages(pixels: npt.NDArray[Any]) -> None:
    """Map the pages of part of a ring into this process at once, before the kernel reads from them.

    A pwrite(2) from pages that are not mapped yet copies in small pieces; without
    this the writer of a run costs a third more (measured on ext4).
    """
    libc.madvise(
        ctypes.c_void_p(pixels.ctypes.data), ctypes.c_size_t(pixels.nbytes), ctypes.c_int(_MADV_POPULATE_READ)
    )
