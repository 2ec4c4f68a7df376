"""The claim on the next run: from the moment a start is received until its run is accepted or refused.

A writer is forked and looks at the path meanwhile, which takes milliseconds or, where a
file system or the fork server is slow, seconds. The claim is taken before anything of that:
whoever comes later is refused at once, and a Stop that finds it ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from daq_core.errors import Stopped
from daq_core.state.status import WriteRequest

STOPPED = "Stopped before the file was open."
GONE = "Given up before the file was open: nobody waits for the answer any more."
LOOK_S = 0.25  # how often a claim that lasts looks whether its asker is still there

Result = TypeVar("Result")


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Asked:
    """When somebody asked for a start, and whether they still wait for its answer.

    n_stops : Stops that had been received by then, ``Daq.n_stops``
    is_gone : tells that the asker has left; by default nobody can know
    """

    n_stops: int
    is_gone: Callable[[], bool] = _never


class Claim:
    """One start's claim; its owner, ``daq_core.control.runner``, calls :meth:`end` when it is over."""

    def __init__(self, request: WriteRequest, asked: Asked) -> None:
        self.request = request
        self._asked = asked
        self._stopped = asyncio.Event()
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Have the start end without a run."""
        self._stopped.set()

    def end(self) -> None:
        """Let those go on who wait for the end of the claim."""
        self._over.set()

    async def ended(self) -> None:
        """Wait until the start has become a run, or will never be one."""
        await self._over.wait()

    async def see(self, preparing: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what a run needs.

        Raises
        ------
        Stopped
            A Stop came first, or the asker left; what was being prepared is cancelled.
        """
        prepared = asyncio.ensure_future(preparing)
        stop = asyncio.ensure_future(self._stopped.wait())
        try:
            while not prepared.done() and not stop.done() and not self._asked.is_gone():
                await asyncio.wait({prepared, stop}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not prepared.done():
                prepared.cancel()
                await asyncio.wait({prepared})
        if prepared.cancelled():
            raise Stopped(STOPPED if self._stopped.is_set() else GONE)
        return prepared.result()

    def check(self) -> None:
        """Raise Stopped when a Stop has come."""
        if self._stopped.is_set():
            raise Stopped(STOPPED)
