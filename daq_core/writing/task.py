"""What processes that write or mend are told, and the channel a writer talks over; see ``writing.writer``."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from dataclasses import asdict, dataclass
from typing import Any

MAX_THREADS = 16  # that compress for a run, unless more are asked for


@dataclass(frozen=True)
class WriterTask:
    """Everything a writer needs to know of its run."""

    output_file: str
    n_images: int  # 0: until stopped
    run_id: int | str
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

    def to_json(self) -> str:
        return json.dumps({"task": asdict(self)})


@dataclass(frozen=True)
class MendTask:
    """Everything that a process needs to know to mend the file of a run."""

    output_file: str
    run_id: str  # of the run whose file it has to be
    writer_user_id: int
    writer_group: int | None
    output_roots: tuple[str, ...]
    failure: str = ""  # the message that the run ended with, if it is known


class Control:
    """The control process as the writer sees it: lines of JSON on a socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pending = b""
        self.gone = False

    def fileno(self) -> int:
        return self._channel.fileno()

    def close(self) -> None:
        self._channel.close()

    def tell(self, **message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Return the next message; None after the timeout or when control is gone."""
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._channel], [], [], timeout_s)
            if not ready:
                return None
            try:
                received = self._channel.recv(1 << 20)
            except ConnectionResetError:
                received = b""
            if not received:
                self.gone = True
                return None
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
