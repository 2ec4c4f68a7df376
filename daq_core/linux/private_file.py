"""Files of the service's own, which nobody else reads, whatever the umask: state, setpoints, the journal."""

from __future__ import annotations

import os


def private(path: str, flags: int) -> int:
    """Open a file, one that is new with mode 0600; for ``open(…, opener=private)``."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
