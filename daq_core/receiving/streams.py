"""Receives whole images from ZeroMQ into the image ring: what the compiled loop is for UDP packets.

Each message is an image of one unit, so one is opened, filled and published
before the next is looked at: nothing is ever incomplete, and images are
published in the order they come. Over several sockets that need not be the order
of their ids. The bookkeeping is that of ``daq_core.receiving.stream_assembly``: runs, late and
repeated images and a full ring are what they are for packets, and a message
counts as a packet. ZeroMQ connects, and connects again; what it may hold back
is bounded by ``QUEUE_BYTES`` for all sockets together. When that is full a PUSH
sender waits, and a PUB sender drops what it cannot send, which nobody here can count.
A message that has not ended may be as long as ``OPEN_BYTES`` and four images: see
``daq_core.receiving.stream_connection``. Of one that has, the parts are taken one by one,
and those that nobody reads are let go at once.

When a run is to end, what has come by then is taken first: ZeroMQ's own threads get
``DRAIN_S`` to bring what the kernel has, and then its queues are read until they are
empty; of a camera that does not pause, as many messages as they can hold.
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import zmq

from daq_core.assembling.signatures import Assembly
from daq_core.config import DaqConfig
from daq_core.detectors import Layout
from daq_core.errors import Unavailable
from daq_core.receiving.stream_assembly import end, nothing_to_erase, open_image, publish, turn
from daq_core.receiving.stream_connection import StreamConnection
from daq_core.receiving.stream_messages import BadMessage, MessageReader
from daq_core.ring.words import Arm, Word

log = logging.getLogger(__name__)

BATCH = 64  # parts of messages of one socket before it is the next one's turn
POLL_MS = 20
DRAIN_S = 0.015  # within a poll that brings nothing
LOOK_EVERY_S = 0.02  # at the connections
QUEUE_BYTES = 256 * 2**20
OPEN_BYTES = 16 * 2**20  # and four images, of a message that has not ended, and of each part of one
PARTS_THAT_MATTER = 3  # both headers, and the data of the first channel
LOG_EVERY_S = 5.0
SILENT_PEER_S = 10  # then the kernel asks whether a silent connection is still one
ZMQ_TYPES = {"pull": zmq.PULL, "sub": zmq.SUB}


class StreamReceiver:
    """Connected ZeroMQ sockets, one for each address of a config.

    Raises
    ------
    Unavailable
        The name of a sender's machine is not known.
    """

    def __init__(self, config: DaqConfig, layout: Layout) -> None:
        self._layout = layout
        self._refusals = _Refusals()
        self._senders: dict[zmq.Socket[bytes], _Sender] = {}
        self._next_look = 0.0  # at them, monotonic seconds
        for address in config.stream_addresses:
            _look_up(address)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(min(4, len(config.stream_addresses)))
        queue = QUEUE_BYTES // (layout.image_bytes * len(config.stream_addresses))
        max_open_bytes = OPEN_BYTES + 4 * layout.image_bytes
        for address in config.stream_addresses:
            receiver = self._context.socket(ZMQ_TYPES[config.stream_socket])
            receiver.linger = 0
            receiver.rcvhwm = max(2, min(1000, queue))
            receiver.maxmsgsize = max_open_bytes
            receiver.ipv6 = "[" in address
            receiver.setsockopt(zmq.TCP_KEEPALIVE, 1)
            receiver.setsockopt(zmq.TCP_KEEPALIVE_IDLE, SILENT_PEER_S)
            receiver.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 2)
            receiver.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            if config.stream_socket == "sub":
                receiver.subscribe(b"")
            connection = StreamConnection(receiver, address, max_open_bytes)
            self._senders[receiver] = _Sender(address, MessageReader(layout), connection)

    def receive(self, assembly: Assembly) -> None:
        """Receive until Word.LEAVE is set."""
        poller = zmq.Poller()
        for receiver in self._senders:
            poller.register(receiver, zmq.POLLIN)
        words = assembly.ring.words
        drain = _Drain(sum(2 * receiver.rcvhwm for receiver in self._senders))
        while words[Word.LEAVE] == 0:
            ending = self._turn(assembly)
            drain.expect(ending, int(words[Word.RECEIVED]), time.monotonic())
            now = time.monotonic_ns()
            waiting = poller.poll(POLL_MS)
            if not waiting:
                assembly.ring.arms[0, Arm.EMPTY_NS] = now
            more = [self._read(receiver, assembly) for receiver, _ in waiting]
            if ending and drain.is_over(any(more), int(words[Word.RECEIVED]), time.monotonic()):
                end(nothing_to_erase, self._layout.ports, assembly, ending)
            self._refusals.tell()
            self._look_at_connections()

    def _look_at_connections(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            for sender in self._senders.values():
                sender.connection.look(now)

    def _read(self, receiver: zmq.Socket[bytes], assembly: Assembly) -> bool:
        """Take what a socket has, or the first of it; returns whether there may be more."""
        sender = self._senders[receiver]
        for _ in range(BATCH):
            if not sender.parts:
                self._turn(assembly)  # a message that comes after WAITING_IMAGES has to find the run begun
            try:
                frame = receiver.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            sender.connection.has_heard = True
            if len(sender.parts) < PARTS_THAT_MATTER:
                sender.parts.append(frame.buffer)
            if not frame.more:
                self._take_message(sender, assembly)
        return True

    def _take_message(self, sender: _Sender, assembly: Assembly) -> None:
        try:
            self._take(sender.parts, sender.reader, assembly)
        except BadMessage as error:
            self._refusals.add(sender.address, str(error))
        sender.parts = []
        assembly.ring.words[Word.RECEIVED] += 1

    def _turn(self, assembly: Assembly) -> int:
        return int(turn(nothing_to_erase, self._layout.ports, assembly, time.monotonic_ns()))

    def _take(self, parts: list[memoryview], reader: MessageReader, assembly: Assembly) -> None:
        """Put the image of a message into the ring; BadMessage when it has none, which is counted."""
        now, real = time.monotonic_ns(), time.time_ns()
        try:
            message = reader.read(parts)
        except BadMessage:
            assembly.ring.words[Word.MALFORMED] += 1
            raise
        slot = open_image(assembly, np.uint64(message.image_id), now, real)
        if slot < 0:
            return
        is_good = False
        try:
            pixels = assembly.ring.pixels[slot, : self._layout.image_bytes]
            message.put(pixels.view(self._layout.dtype))
            is_good = True
        finally:
            publish(nothing_to_erase, self._layout.ports, assembly, slot, is_good, now)

    def close(self) -> None:
        """Close the sockets; the loop has ended."""
        self._context.destroy(linger=0)


def _look_up(address: str) -> None:
    """Demand that an address can be connected to: ZeroMQ itself would wait for it without a word."""
    parts = urlsplit(address)
    try:
        socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(
            f"stream address {address}: the host {parts.hostname} is not known: {error.strerror}."
        ) from None


@dataclass
class _Sender:
    """One address: `parts` are the first ones of a message that is being received."""

    address: str
    reader: MessageReader
    connection: StreamConnection
    parts: list[memoryview] = field(default_factory=list)


@dataclass
class _Drain:
    """Tells when all has been taken that had come when a run was to end.

    n_waiting : how many messages may wait, in the queues and on their way there
    """

    n_waiting: int
    _epoch: int = 0
    _since: float = 0.0
    _n_before: int = 0

    def expect(self, epoch: int, n_received: int, now: float) -> None:
        """Begin, when that end (0: none) has not been expected yet; `now` is monotonic seconds."""
        if epoch != self._epoch:
            self._epoch, self._n_before, self._since = epoch, n_received, now

    def is_over(self, is_more: bool, n_received: int, now: float) -> bool:
        """Say so after the sockets were read; `is_more` when one of them was not read to its end."""
        is_empty = not is_more and now - self._since >= DRAIN_S
        return is_empty or n_received - self._n_before >= self.n_waiting


@dataclass
class _Refusals:
    """Messages that held no image, told in a log line at once and then every few seconds."""

    _n: int = 0
    _last: tuple[str, str] = ("", "")
    _next_line: float = field(default=0.0)

    def add(self, address: str, reason: str) -> None:
        self._n += 1
        self._last = address, reason
        self.tell()

    def tell(self) -> None:
        if self._n and time.monotonic() >= self._next_line:
            many = f"{self._n} messages, the last" if self._n > 1 else "a message"
            log.warning("refused %s from %s: %s", many, *self._last)
            self._n, self._next_line = 0, time.monotonic() + LOG_EVERY_S
