"""What processes of this room are told, and what they say: those that write, mend, or read maps.

The conversation of a writer is in ``daq_core.writing.writer``; of the others each answers one question.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from daq_core.processes.lines import Vocabulary

MAX_THREADS = 16  # that compress for a run, unless more are asked for


@dataclass(frozen=True)
class WriterTask:
    """Everything a writer needs to know of its run."""

    output_file: str
    n_images: int  # 0: until stopped
    run_id: int | str
    start_id: int  # of images outside of these none is in the run
    end_id: int | None
    image_shape: tuple[int, int]
    dtype: str
    detector_name: str
    detector_type: str
    bit_depth: int
    config_json: str
    software: str
    n_slots: int
    n_modules: int
    n_units: int
    room_bytes: int
    writer_user_id: int
    writer_group: int | None
    min_user_id: int
    output_roots: tuple[str, ...]
    overwrite: bool
    compression: str = "none"
    compression_threads: int = 0
    direct_io: bool = False  # past the page cache, where that can be
    n_writers: int = 1  # images go to so many files in turn

    @property
    def threads(self) -> int:
        """Threads that compress in each writer: those asked for, or a share of the cores."""
        return self.compression_threads or max(
            1, min(MAX_THREADS, len(os.sched_getaffinity(0))) // self.n_writers
        )


# ------------------------------------------------------------ what a writer is told


@dataclass(frozen=True)
class Open:
    """Create the file, and write the images of an epoch into it."""

    start_time: float  # Unix seconds, for the file
    epoch: int


@dataclass(frozen=True)
class Hurry:
    """End now: images that are still in the ring are given up."""


@dataclass(frozen=True)
class Abort:
    """The receiver is gone: write what is published, and end as FAILED."""

    reason: str


# ------------------------------------------------------------ what a writer says


@dataclass(frozen=True)
class Checked:
    """The run can be written where it was asked for."""

    free_bytes: int  # or UNKNOWN, of ``daq_core.files.output``
    warning: str  # of the user whose file it will be; "" for none
    note: str  # of that user, for the log
    low_space: str  # what is worth a warning of the free space; "" for nothing


@dataclass(frozen=True)
class FileRefused:
    """It cannot; nothing has changed."""

    reason: str


@dataclass(frozen=True)
class Opened:
    """The file is there, and the writer waits for images."""


@dataclass(frozen=True)
class Failed:
    """The file could not be created, written or closed; a reader can see so many images."""

    reason: str
    n_completed: int


@dataclass(frozen=True)
class Closed:
    """The file is closed in order."""

    n_completed: int  # images in it
    stop_time: float  # Unix seconds


TO_WRITER = Vocabulary(WriterTask, Open, Hurry, Abort)
FROM_WRITER = Vocabulary(Checked, FileRefused, Opened, Failed, Closed)

# ------------------------------------------------------------ questions


@dataclass(frozen=True)
class MendTask:
    """Everything that a process needs to know to mend the file of a run."""

    output_file: str
    run_id: str  # of the run whose file it has to be
    writer_user_id: int
    writer_group: int | None
    output_roots: tuple[str, ...]
    failure: str = ""  # the message that the run ended with, if it is known


@dataclass(frozen=True)
class MapsTask:
    """Whose gain and pedestal files to read."""

    config: dict[str, Any]


@dataclass(frozen=True)
class MapsRead:
    """Why they cannot be used, "" when they can; and what is worth a warning of them."""

    trouble: str
    remarks: str = ""
