"""Opening a file to read that somebody else has named: only if it is one, and without waiting.

A pipe is opened when somebody writes to it, which may be never, and opening a device may do
something, as rewind a tape. So what is there is looked at first, and the very same thing
is opened then.

Source: open(2), O_PATH; proc(5), /proc/pid/fd.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotAFileError(OSError):
    """It is something else; the text says what."""


@contextmanager
def opened_regular(path: str) -> Iterator[int]:
    """Give the descriptor of a regular file, links followed, to read from.

    Raises
    ------
    NotAFileError
        There is a folder, a pipe, a socket or a device of that name.
    OSError
        It cannot be opened, or not without waiting.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(place).st_mode)
        if kind != stat.S_IFREG:
            raise NotAFileError(f"it is {KINDS.get(kind, 'something else')}, not a regular file")
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
