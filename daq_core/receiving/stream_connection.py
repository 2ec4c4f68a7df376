"""A connected ZeroMQ socket that never goes deaf.

libzmq connects again after a connection was lost, but gives an address up for good,
without a word, when somebody there broke its protocol: after a program that was
no camera had the port for a moment, the camera was never heard again. Here that
is noticed, and the address connected to once more.

Source: zmq_socket_monitor(3); libzmq 4.3, ``session_base_t::engine_error``.
"""

from __future__ import annotations

import contextlib
import logging

import zmq
from zmq.utils.monitor import recv_monitor_message

log = logging.getLogger(__name__)

EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED
GIVEN_UP_S = 1.0  # after a loss without another attempt; those of libzmq begin within 0.2 s


class StreamConnection:
    """Connects a socket to an address; ``look`` now and then keeps it so."""

    def __init__(self, socket: zmq.Socket[bytes], address: str) -> None:
        self._socket = socket
        self._address = address
        self._monitor = socket.get_monitor_socket(EVENTS)
        self._lost_at: float | None = None  # and nobody has tried again since
        socket.connect(address)

    def look(self, now: float) -> None:
        """Connect again when the address was given up; `now` is monotonic seconds."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            self._lost_at = now if event == zmq.EVENT_DISCONNECTED else None
        if self._lost_at is not None and now - self._lost_at > GIVEN_UP_S:
            log.warning("%s: what answered there does not speak ZeroMQ; connecting again", self._address)
            with contextlib.suppress(zmq.ZMQError):  # there is nothing left to disconnect
                self._socket.disconnect(self._address)
            self._socket.connect(self._address)
            self._lost_at = now
