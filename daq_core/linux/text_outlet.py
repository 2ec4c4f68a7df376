"""Text for a descriptor that nobody may be reading: a bounded queue, and a thread that writes.

A terminal after Ctrl-S, a stopped ``tee`` or a disk that hangs keep whoever writes to them
waiting. Here that is the thread: :meth:`TextOutlet.write` never waits. When the queue is full, new
lines are dropped and counted, and the next reader is told how many.

Only a process that has something to say has the thread; a forked one begins with an
empty queue and no thread.
"""

from __future__ import annotations

import io
import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Self, TextIO

MAX_QUEUED = 1 << 20  # characters that may wait to be written; of log lines, some ten thousand
DRAIN_S = 1.0  # how long an end waits for somebody to read what is still queued


class TextOutlet(io.TextIOBase):
    """What can stand in for ``sys.stderr`` in a process that must not wait for its readers.

    Lines are written whole, as UTF-8, whatever the locale. A reader that is gone is no error.
    ``n_queued`` characters wait for the reader.
    """

    def __init__(
        self, descriptor: int, told_of_loss: Callable[[int], str] | None = None, max_queued: int = MAX_QUEUED
    ) -> None:
        """Write to a descriptor; `told_of_loss` makes the line that says how many were dropped."""
        self._descriptor = descriptor
        self._told_of_loss = told_of_loss or "{} lines were dropped here: nobody read them.\n".format
        self._max_queued = max_queued
        self._begin()
        _outlets.add(self)

    @classmethod
    def instead_of(cls, stream: TextIO | None, told_of_loss: Callable[[int], str] | None = None) -> Self:
        """Return an outlet to where a stream writes, or to nowhere for one that was closed at the start."""
        return cls(os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno(), told_of_loss)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[tuple[str, int]] = deque()  # and how many lines each stands for, if it is lost
        self.n_queued = 0
        self._begun_line = ""
        self._n_dropped = 0
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # TextIOBase has a plain attribute
        return "utf-8"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue what is a whole line by now; full: it is dropped, and counted."""
        with self._changed:
            *lines, self._begun_line = (self._begun_line + text).split("\n")
            for line in lines:
                self._queue(line + "\n")
            if len(self._begun_line) > self._max_queued:  # a line without an end is none
                self._begun_line = ""
                self._n_dropped += 1
        return len(text)

    def _queue(self, line: str) -> None:
        # Once something was dropped, half of the queue must be free again: not a gap after each line.
        room = self._max_queued // 2 if self._n_dropped else self._max_queued
        if self._lines and self.n_queued + len(line) > room:
            self._n_dropped += 1
            return
        self._tell_of_loss()
        self._append(line, 1)

    def _tell_of_loss(self) -> None:
        if self._n_dropped:
            n, self._n_dropped = self._n_dropped, 0
            self._append(self._told_of_loss(n), n)

    def _append(self, line: str, n_lines: int) -> None:
        self._lines.append((line, n_lines))
        self.n_queued += len(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_out, daemon=True, name="outlet")
            try:
                self._thread.start()
            except RuntimeError:  # this user may have no more threads; the next line tries again
                self._thread = None
        self._changed.notify_all()

    def _write_out(self) -> None:
        """Write line after line, as fast as somebody reads them."""
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                line, n_lines = self._lines[0]
            is_written = self._put(line.encode("utf-8", "backslashreplace"))
            with self._changed:
                self._lines.popleft()
                self.n_queued -= len(line)
                if not is_written:
                    self._n_dropped += n_lines
                elif not self._lines:
                    self._tell_of_loss()
                self._changed.notify_all()

    def _put(self, data: bytes) -> bool:
        """Write it all, however long that takes; False when it cannot be, as without a reader."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares the descriptor made it so
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
            except OSError:
                return False
        return True

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Wait until everything is written, but no longer; tell whether it is."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if self._begun_line:
                line, self._begun_line = self._begun_line, ""
                self._queue(line)
            while self._lines:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left)
        return True


class OutletHandler(logging.Handler):
    """Log lines into an outlet; ``logging.shutdown`` waits a little for a reader of the last ones."""

    def __init__(self, outlet: TextOutlet, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outlet.write(self.format(record) + "\n")
        except Exception:  # as every handler of logging: a record that cannot be formatted
            self.handleError(record)

    def flush(self) -> None:
        self._outlet.drain()


_outlets: weakref.WeakSet[TextOutlet] = weakref.WeakSet()


def _begin_anew() -> None:
    """In a forked process: what is queued is its parent's to write, and so is the thread."""
    for outlet in _outlets:
        outlet._begin()


os.register_at_fork(after_in_child=_begin_anew)
