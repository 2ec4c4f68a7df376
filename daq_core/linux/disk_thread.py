"""A thread that waits for a disk, so that nobody else has to: neither the loop nor the end of the program.

Python waits at its end for the threads of its own pools, as long as a network
disk hangs. This one is a daemon.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue

log = logging.getLogger(__name__)

Job = tuple["Future[None]", Callable[[], None]]


class DiskThread:
    """Does one piece of work after the other, in the order they were given.

    Work that raises is a line in the log. What waits for a disk that hangs is a
    few small things a run, so the queue has no bound.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Have something done; the future is set when it is."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        done: Future[None] = Future()
        self._jobs.put((done, work))
        return done

    async def finish(self, timeout_s: float) -> bool:
        """Wait for all that was submitted, so long at most, and end the thread; tell whether it was done."""
        if self._thread is None:
            return True
        last = self.submit(lambda: None)
        self._jobs.put(None)
        self._thread = None
        return bool((await asyncio.wait({asyncio.wrap_future(last)}, timeout=timeout_s))[0])

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, work = job
            try:
                work()
            except Exception:
                log.exception("a piece of work for a disk failed")
            with suppress(InvalidStateError):  # the task that waited for it was cancelled
                done.set_result(None)
