"""The folders that files may be written in: no link leads out of them, nor one that is put there in time.

A path is checked with its links resolved, and then walked part by part without
following any: between the two nobody can lead it elsewhere. What is made in the
folder is made by its descriptor. All of it with the rights of the run's user.

Source: openat(2), "Rationale for openat() and other directory file descriptor APIs".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from daq_core.errors import InvalidRequest


def check_roots(folder: str, roots: Sequence[str]) -> str:
    """Return a folder with its links resolved; InvalidRequest unless it lies in one of the allowed roots."""
    try:
        real = os.path.realpath(folder)
    except OSError as error:  # a part of it became a folder while it was read as a link
        raise InvalidRequest(f"Output file folder {folder} cannot be looked at: {error.strerror}.") from None
    for root in roots:
        real_root = os.path.realpath(root)
        if os.path.commonpath([real, real_root]) == real_root:
            return real
    raise InvalidRequest(
        f"Output file folder {folder} is outside of what this service may write to: {', '.join(roots)}."
    )


@contextmanager
def opened_folder(folder: str, roots: Sequence[str]) -> Iterator[int]:
    """Open a folder for what is made in it by ``dir_fd``; it cannot lie outside of the allowed roots.

    Raises
    ------
    InvalidRequest
        It lies outside, or a part of it became a link while it was looked at.
    OSError
        It is not there, or may not be entered.
    """
    descriptor = _walk(folder, check_roots(folder, roots))
    try:
        yield descriptor
    finally:
        _close(descriptor)


def _walk(folder: str, real: str) -> int:
    """Open a path that has no links, step by step."""
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in filter(None, real.split("/")):
            descriptor = entered(descriptor, part)
    except OSError as error:
        _close(descriptor)
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise InvalidRequest(
                f"Output file folder {folder} cannot be used: a part of it is not a folder any more."
            ) from None
        raise
    return descriptor


def entered(folder: int, part: str) -> int:
    """Close the descriptor of a folder and return that of one in it, which must not be a link."""
    inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    _close(folder)
    return inner


def _close(folder: int) -> None:
    with suppress(OSError):  # nothing was written through it that could be lost
        os.close(folder)
