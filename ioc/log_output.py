"""How the service's log lines look: one line each, on stderr, the same whoever speaks.

Libraries (uvicorn, caproto, redis) are heard from WARNING up, or from DEBUG up
when that is asked for: what they say at INFO repeats what our own lines say.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

LogLevel = Literal["debug", "info", "warning", "error"]

OURS = ("ioc", "daq_core", "rest_bridge")


class _OneLine(logging.Formatter):
    """``2026-11-23 12:41:41.123 WARNING daq_core.pipeline: text``, in local time."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def log_to(stream: TextIO = sys.stderr, level: LogLevel = "info") -> None:
    """Send every log line and Python warning of this process to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_OneLine())
    logging.basicConfig(handlers=[handler], level="DEBUG" if level == "debug" else "WARNING", force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in ("numba", "asyncio"):  # at DEBUG they bury everything else
        logging.getLogger(name).setLevel("WARNING")
    logging.captureWarnings(True)
