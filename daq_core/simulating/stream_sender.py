"""Sends whole images as ZeroMQ messages, as a camera's server does: it binds, receivers connect.

Over several addresses images go out in turn. Nobody is waited for longer than
``WAIT_MS`` at a time: what finds no receiver is counted, and lost.
"""

from __future__ import annotations

import socket
from typing import Literal
from urllib.parse import urlsplit

import zmq

from daq_core.errors import Unavailable
from daq_core.simulating.sender import REFUSED, SENT, PacedSender

QUEUE = 100  # messages for each receiver
WAIT_MS = 3000
LINGER_MS = 10_000  # what was sent still goes out, if its receiver lives
ZMQ_TYPES = {"pull": zmq.PUSH, "sub": zmq.XPUB}  # XPUB is a PUB that is told of subscribers


class StreamSender(PacedSender[list[bytes]]):
    """Bound ZeroMQ sockets, one for each address.

    Usage: ``with StreamSender(["tcp://127.0.0.1:9999"], "pull") as sender: sender.send(messages, 10)``.

    Parameters
    ----------
    addresses : ``tcp://host:port`` of this machine
    kind : of the receivers' sockets

    Raises
    ------
    Unavailable
        An address is taken or not of this machine.
    """

    def __init__(self, addresses: list[str], kind: Literal["pull", "sub"]) -> None:
        super().__init__()
        self._has_receiver = [False] * len(addresses)
        self._next = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets = [self._context.socket(ZMQ_TYPES[kind]) for _ in addresses]
        try:
            for sender, address in zip(self._sockets, addresses, strict=True):
                sender.sndhwm = QUEUE
                sender.linger = LINGER_MS
                sender.sndtimeo = WAIT_MS
                if kind == "sub":
                    sender.setsockopt(zmq.XPUB_NODROP, 1)
                sender.ipv6 = "[" in address
                sender.bind(_numeric(address))
        except (zmq.ZMQError, OSError) as error:
            self._context.destroy(linger=0)
            raise Unavailable(f"cannot send at {address}: {str(error.strerror).lower()}.") from None

    def close(self) -> None:
        """Close the sockets when what was sent has gone out."""
        for sender in self._sockets:
            sender.close()
        self._context.term()

    def _transmit(self, image: list[bytes], spread_s: float) -> None:
        which, self._next = self._next, (self._next + 1) % len(self._sockets)
        if not self._wait_for_receiver(which):
            self._counts[REFUSED] += 1
            return
        try:
            self._sockets[which].send_multipart(image, copy=False)
            self._counts[SENT] += 1
        except zmq.Again:  # no receiver, or its queue has been full all the time
            self._counts[REFUSED] += 1

    def _wait_for_receiver(self, which: int) -> bool:
        """Wait for the first subscriber, whose connecting takes a moment; PUSH waits for room anyway."""
        sender = self._sockets[which]
        if sender.type == zmq.PUSH or self._has_receiver[which]:
            return True
        if sender.poll(WAIT_MS, zmq.POLLIN):
            sender.recv()
            self._has_receiver[which] = True
        return self._has_receiver[which]


def _numeric(address: str) -> str:
    """Return the address with its host as numbers: ZeroMQ binds to no names."""
    parts = urlsplit(address)
    family = socket.AF_INET6 if "[" in address else socket.AF_INET
    host = socket.getaddrinfo(parts.hostname, parts.port, family, socket.SOCK_STREAM)[0][4][0]
    return f"tcp://[{host}]:{parts.port}" if "[" in address else f"tcp://{host}:{parts.port}"
