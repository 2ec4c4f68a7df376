"""How much memory a process holds."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB, without what it shares with others by memfd or mmap."""
    words = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(words["RssAnon"].split()[0]) / 1024
