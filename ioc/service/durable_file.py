"""Small files that must survive a power cut: replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from daq_core.linux.private_file import private


def replace_file(path: Path, text: str) -> None:
    """Put a new content in a file's place; OSError leaves the old one there. It waits for the disk.

    Only its owner may read it. Written beside it under the name ``….new``, synced, renamed; then the
    name is synced, too.
    """
    write_beside(path, text).replace(path)
    sync_names(path.parent)


def write_beside(path: Path, text: str) -> Path:
    """Write what is to replace a file, so that its space is taken; returns where."""
    new = path.with_suffix(".new")
    with open(new, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return new


def sync_names(folder: Path) -> None:
    """Have the disk know which names a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
