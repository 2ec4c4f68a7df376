"""What asyncio reports when there is nobody to be told: one line of log, not thousands.

A process that has no descriptor left cannot accept a connection. asyncio then tries as
often as connections may wait, and reports each with a traceback: 12,000 lines within a
second were seen. It tries again after a second by itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from typing import Any

log = logging.getLogger(__name__)

QUIET_S = 10.0
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class LoopErrors:
    """An exception handler of an event loop: ``loop.set_exception_handler(LoopErrors())``."""

    def __init__(self) -> None:
        self._told_s = -QUIET_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in EXHAUSTED and "socket" in context):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._told_s >= QUIET_S:
            self._told_s = time.monotonic()
            log.error(
                "connections have to wait: %s. More descriptors: ulimit -n, or LimitNOFILE of systemd.",
                os.strerror(error.errno),
            )
