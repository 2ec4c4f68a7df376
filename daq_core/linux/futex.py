"""Waiting for a word of shared memory to change: futex(2), which Python does not offer."""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np
import numpy.typing as npt

from daq_core.linux.libc import libc

SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine, 202)
"""Number of the system call futex(2), which ``compiled.wake`` needs too."""
_FUTEX_WAIT = 0


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def wait_for_change(words: npt.NDArray[np.int64], index: int, seen: int, timeout_s: float) -> None:
    """Return when a word differs from `seen`, or after the timeout; needs no lock and no polling."""
    timeout = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    address = words.ctypes.data + index * 8  # little-endian: the low half is first
    result = libc.syscall(
        SYS_FUTEX,
        ctypes.c_void_p(address),
        _FUTEX_WAIT,
        ctypes.c_uint32(seen & 0xFFFFFFFF),
        ctypes.byref(timeout),
        None,
        0,
    )
    if result < 0 and (error := ctypes.get_errno()) not in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR):
        raise OSError(error, os.strerror(error))
