"""A new file, or one in the place of another: whoever has the other one open keeps what he has.

The folder is opened first, below the roots (``daq_core.files.roots``), and the name in it after
that: no link that somebody swaps meanwhile leads elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from daq_core.files.output import why_not_replaced
from daq_core.files.roots import opened_folder


class OpenElsewhere(FileExistsError):
    """A file that cannot be replaced as long as somebody has it open."""


@contextmanager
def new_descriptor(path: str, overwrite: bool, roots: Sequence[str]) -> Iterator[int]:
    """Open a new file, or with `overwrite` an existing regular one that nobody else has open.

    A new file is removed again when the body fails.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with opened_folder(os.path.dirname(path), roots) as folder:
        name = os.path.basename(path)
        try:
            fd = os.open(name, flags if overwrite else flags | os.O_EXCL, 0o664, dir_fd=folder)
        except FileExistsError:
            raise FileExistsError(f"Output file {path} exists already. Choose another name.") from None
        try:
            if overwrite:
                _check_replaceable(path, fd)
            yield fd
            closing, fd = fd, -1
            os.close(closing)  # on NFS it may be the first to say that the disk is full
        except BaseException:
            if not overwrite:
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            raise
        finally:
            if fd >= 0:
                os.close(fd)


def _check_replaceable(path: str, fd: int) -> None:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise FileExistsError(f"Cannot replace {path}: it is not a regular file.")
    if why := why_not_replaced(about):
        raise FileExistsError(f"Cannot replace {path}: {why}.")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # HDF5 locks it itself
    except BlockingIOError:
        raise OpenElsewhere(f"Cannot replace {path}: it is open elsewhere. Close it there first.") from None
    except OSError:
        pass  # a file system without locks
