"""What the process is told that looks at a folder, and what it answers; see ``daq_core.control.folder``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FolderTask:
    """Which folder to look at, as whom."""

    folder: str  # absolute
    may_make: int  # so many missing folders, counted from the end of the path
    writer_user_id: int
    writer_group: int | None
    min_user_id: int
    output_roots: tuple[str, ...]


@dataclass(frozen=True)
class FolderFound:
    """Why no run could write into it; "" when one could."""

    trouble: str
