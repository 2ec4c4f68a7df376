"""How the service's log lines look: one line each, on stderr, the same whoever speaks.

Libraries (uvicorn, caproto, redis) are heard from WARNING up, or from DEBUG up
when that is asked for: what they say at INFO repeats what our own lines say.

Whoever speaks never waits for a reader of stderr or stdout (``daq_core.linux.text_outlet``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from daq_core.linux.text_outlet import OutletHandler, TextOutlet

COUNTED = {"counted": True}
"""For ``log.error(…, extra=COUNTED)``: the code that logs this line counts it itself."""

LogLevel = Literal["debug", "info", "warning", "error"]

OURS = ("ioc", "daq_core", "rest_bridge")


class _OneLine(logging.Formatter):
    """``2026-11-23 12:41:41.123 WARNING daq_core.pipeline.pipeline: text``, in local time."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def log_to_stderr(level: LogLevel = "info") -> None:
    """Send every log line and Python warning of this process to stderr, from now until it ends.

    Whatever else writes to ``sys.stderr`` or ``sys.stdout`` does not wait for readers then, either.
    """
    outlet = TextOutlet.instead_of(sys.stderr, told_of_loss)
    sys.stderr, sys.stdout = outlet, TextOutlet.instead_of(sys.stdout)
    handler = OutletHandler(outlet, _OneLine())
    logging.basicConfig(handlers=[handler], level="DEBUG" if level == "debug" else "WARNING", force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in ("numba", "asyncio"):  # at DEBUG they bury everything else
        logging.getLogger(name).setLevel("WARNING")
    logging.captureWarnings(True)


def told_of_loss(n_lines: int) -> str:
    """Return the line that stands where lines are missing."""
    text = f"{n_lines} log lines were dropped here: nobody read this output"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
    return _OneLine().format(record) + "\n"


class Errors:
    """How many errors there were in this process, and the text of the last one.

    Counted are those that somebody adds and, within ``with errors.of_the_log(): …``, the lines
    of the log at ERROR and above, of all threads.
    """

    def __init__(self) -> None:
        self.n = 0
        self.last = ""

    def add(self, text: str) -> None:
        self.n += 1
        self.last = text

    @contextmanager
    def of_the_log(self) -> Iterator[None]:
        handler = _Counting(self)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


class _Counting(logging.Handler):
    def __init__(self, errors: Errors) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "counted"):
            self._errors.add(record.getMessage())
