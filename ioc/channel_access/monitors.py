"""Updates on their way to one client: a queue for each monitor, and whose turn it is.

Nobody ever waits to put an update here. A monitor's queue holds
``Record.backlog`` updates; when it is full its oldest is dropped and counted. A
client that switched its events off (Channel Access's flow control) has one
update a monitor kept for it, the newest.
"""

from __future__ import annotations

import asyncio
from collections import deque

import caproto as ca

from daq_core.showing.feed import Feed
from ioc.channel_access.messages import EVENT, NO_READ_ACCESS, OK, value_message
from ioc.records.dbr import Wire
from ioc.records.record import Record

BATCH_BYTES = 64 * 1024  # updates sent at once


class Monitor:
    """A client's wish to be told of a record's changes."""

    def __init__(self, record: Record, request: ca.EventAddRequest, updates: Updates) -> None:
        self.data_type = int(request.data_type)
        self.n = request.data_count
        self.mask = int(request.mask)
        self.id = request.subscriptionid
        self.sid = request.sid
        self.record = record
        self.backlog = record.backlog
        self.pending: Feed[Wire] = Feed()
        self._updates = updates
        self._readable = True

    def allow(self, readable: bool) -> None:
        """Begin with the value as it is; or, where the client may not read it, say so and be silent."""
        self.pending.clear()  # these updates are older than the pause
        self._readable = readable
        wire = self.record.wire if readable else self.record.blank_wire
        self._updates.add(self, wire(self.data_type, self.n))

    def offer(self, update: Wire) -> None:
        """Queue an update."""
        if self._readable:
            self._updates.add(self, update)

    def end(self) -> None:
        """Want no more updates, and none of those that wait."""
        self.record.monitors.discard(self)
        self.pending.clear()
        self._updates.forget(self)

    def message(self, update: Wire) -> bytes:
        status = OK if self._readable else NO_READ_ACCESS
        return value_message(EVENT, self.data_type, update, status, self.id)


class Updates:
    """The updates of all monitors of a client, in the order in which they came."""

    def __init__(self) -> None:
        self._order: deque[Monitor] = deque()  # one entry for each update that waits
        self._n_dropped = 0
        self._paused = False
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """Return how many wait, those of monitors that ended meanwhile too."""
        return len(self._order)

    def add(self, monitor: Monitor, update: Wire) -> None:
        n_dropped = monitor.pending.put(update, 1 if self._paused else monitor.backlog)
        if n_dropped:  # it has the turn of one of them
            self._n_dropped += n_dropped
        else:
            self._order.append(monitor)
        if not self._paused:
            self._ready.set()

    def forget(self, monitor: Monitor) -> None:
        """Drop the turns of a monitor that has ended; where nothing is sent they would stay."""
        if self._paused:
            self._order = deque(other for other in self._order if other is not monitor)

    def pause(self) -> None:
        """The client asked for silence."""
        self._paused = True
        self._ready.clear()

    def resume(self) -> None:
        self._paused = False
        self._ready.set()

    async def ready(self) -> None:
        """Wait until there is something to send."""
        await self._ready.wait()

    def take(self) -> tuple[int, list[bytes]]:
        """Return how many updates were dropped since the last time, and the next ones to send."""
        batch: list[bytes] = []
        n_bytes = 0
        while self._order and n_bytes < BATCH_BYTES:
            monitor = self._order.popleft()
            if monitor.pending:  # else: dropped, or its monitor ended
                message = monitor.message(monitor.pending.popleft())
                batch.append(message)
                n_bytes += len(message)
        if not self._order:
            self._ready.clear()
        n_dropped, self._n_dropped = self._n_dropped, 0
        return n_dropped, batch
