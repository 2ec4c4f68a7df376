"""What the kernel says of each UDP port, for statistics: datagrams it dropped, how full its socket is."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

from daq_core.linux.sockets import kernel_drops, memory_use
from daq_core.ring.ring import Ring
from daq_core.ring.words import SocketState, Word

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0


class SocketWatch:
    """Keeps Ring.sockets and Word.KERNEL_DROPS, for a thread that calls :meth:`look` now and then.

    sockets : of the layout's ports, in their order; none where images come as messages
    """

    def __init__(self, ring: Ring, sockets: list[socket.socket]) -> None:
        self._ring = ring
        self._sockets = sockets
        self._before: list[int] = ring.sockets[:, SocketState.DROPS].tolist()
        self._total_before = int(ring.words[Word.KERNEL_DROPS])
        self._run = int(ring.words[Word.RUN_EPOCH])
        self._told: list[int] = list(self._before)
        self._told_at = 0.0

    def look(self) -> None:
        """Read all sockets; a new run begins with a new peak."""
        states: Any = self._ring.sockets
        epoch = int(self._ring.words[Word.RUN_EPOCH])
        total = 0
        for state, one, before in zip(states, self._sockets, self._before, strict=True):
            dropped = kernel_drops(one)
            used, size = memory_use(one)
            total += dropped
            state[SocketState.DROPS] = before + dropped
            state[SocketState.USED], state[SocketState.SIZE] = used, size
            state[SocketState.PEAK] = used if epoch != self._run else max(used, state[SocketState.PEAK])
        self._run = epoch
        self._ring.words[Word.KERNEL_DROPS] = self._total_before + total
        self._tell()

    def _tell(self) -> None:
        """Log which ports lost datagrams since the last line, at most once a second."""
        if (now := time.monotonic()) - self._told_at < LOG_EVERY_S:
            return
        drops: list[int] = self._ring.sockets[:, SocketState.DROPS].tolist()
        for one, count, told in zip(self._sockets, drops, self._told, strict=False):
            if count > told:
                port, n = one.getsockname()[1], count - told
                log.warning("the kernel dropped %d datagrams at UDP port %d: its socket was full", n, port)
        if drops != self._told:
            self._told, self._told_at = drops, now
