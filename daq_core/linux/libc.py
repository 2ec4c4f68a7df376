"""The C library, for what the standard library does not offer: one handle, and the names of prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # prctl(2)


def be_named(name: bytes) -> None:
    """Give this process the name that ps and top show."""
    libc.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def end_with(parent: int) -> bool:
    """Have the kernel kill this process when the one that forked it ends; False: it has ended already."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
