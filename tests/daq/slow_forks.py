"""A fork server that takes its time before it forks a writer, and counts how often it was asked to."""

from __future__ import annotations

import asyncio
import socket

from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import WRITER


class SlowForks(ForkServer):
    """Real processes, `delay_s` later, or when :meth:`let_go` ends a :meth:`hold`."""

    def __init__(self) -> None:
        super().__init__()
        self.delay_s = 0.0
        self.n_writers = 0  # asked for
        self._free = asyncio.Event()
        self._free.set()

    def hold(self) -> None:
        """Let writers wait until :meth:`let_go`."""
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    async def fork(self, kind: bytes, *descriptors: int) -> socket.socket:
        if kind == WRITER:
            self.n_writers += 1
            await asyncio.sleep(self.delay_s)
            await self._free.wait()
        return await super().fork(kind, *descriptors)
