"""Which signals end the service, and how: in order, and at once only for somebody who insists.

SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal closed), SIGQUIT and SIGPWR end it in order. ``timeout``
and shells send theirs twice, and a terminal's end is often two signals: what comes within a second of
the first counts as the same. SIGTERM or SIGINT after that end it at once; the others never do.

What else a terminal or a supervisor may send (SIGUSR1 …) means nothing here, and is no reason to end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

from ioc.service.loop_errors import LoopErrors

log = logging.getLogger(__name__)

SAME_WITHIN_S = 1.0
INSISTENT = (signal.SIGTERM, signal.SIGINT)
IN_ORDER = (signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR)
NOT_OURS = (signal.SIGUSR1, signal.SIGUSR2)
UNHEARD = (
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGTTIN,
    signal.SIGTTOU,  # else a line of the log stops a service in the background of a terminal with tostop
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


class Ending:
    """Takes the signals of this process from now until it is gone. Usage: ``Ending().run(serving())``."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first_at_s: float | None = None  # when the first came that ends us
        for signum in (*INSISTENT, *IN_ORDER):
            # nohup, and a shell that starts something in the background, have said that it is to live on.
            if signum in INSISTENT or signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._take)
        for signum in NOT_OURS:
            signal.signal(signum, self._pass_over)
        for number in UNHEARD:
            signal.signal(number, signal.SIG_IGN)

    async def run(self, serving: Coroutine[Any, Any, None]) -> bool:
        """Run until it ends by itself (True) or by a signal (False); what it raises goes on."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(LoopErrors())
        self._task = asyncio.create_task(serving)
        if self._first_at_s is not None:
            self._task.cancel()
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return False
        self._task.result()
        return True

    def _take(self, number: int, frame: object) -> None:
        signum, now_s = signal.Signals(number), time.monotonic()
        if self._first_at_s is None:
            self._first_at_s = now_s
            log.info("ending: %s", signum.name)
            if self._task is not None and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)
        elif signum in INSISTENT and now_s - self._first_at_s > SAME_WITHIN_S:
            log.warning("ending at once: %s came again; a running file is left to its writer", signum.name)
            logging.shutdown()
            os._exit(1)  # receiver, writer and Redis end when their parent is gone

    def _pass_over(self, number: int, frame: object) -> None:
        log.info("%s is passed over: it means nothing here", signal.Signals(number).name)
