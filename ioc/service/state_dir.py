"""The state directory of a service: made when it is missing, and held by one service at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daq_core.errors import Unavailable

log = logging.getLogger(__name__)


@contextmanager
def held_state_dir(folder: Path) -> Iterator[None]:
    """Hold the folder while the body runs; the kernel lets go of it however we end.

    Raises
    ------
    Unavailable
        It cannot be made, or another service holds it.
    """
    descriptor = _open(folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"The state directory {folder} is in use by another service. "
                "Stop that one, or give this one a folder of its own with --state-dir."
            ) from None
        except OSError:
            pass  # a file system without locks
        if not os.access(folder, os.W_OK | os.X_OK):
            log.warning("the state directory %s cannot be written: the next start knows nothing", folder)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"The state directory {folder} cannot be made: {error.strerror}. See --state-dir."
        ) from None
