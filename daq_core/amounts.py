"""Amounts as people read them: sizes of files and disks, and numbers of things.

Sizes of memory are in ``daq_core.linux.memory``.
"""

from __future__ import annotations


def in_gb(n_bytes: float) -> str:
    """Return a size in GB, below one in MB, and below one of these in kB: no size but 0 is called 0.00."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.2f} GB"
    if n_bytes >= 1e6:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e3:.0f} kB"


def counted(n: int, thing: str) -> str:
    """Return "1 image", and "2 images" of more or of none."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
