"""A connected ZeroMQ socket that never goes deaf, and whose sender cannot make us hold more than a bound.

libzmq connects again after a connection was lost, but gives an address up for good,
without a word, when somebody there broke its protocol: after a program that was
no camera had the port for a moment, the camera was never heard again. Here that
is noticed, and the address connected to once more.

libzmq bounds the length of a part (ZMQ_MAXMSGSIZE) and how many whole messages wait
(ZMQ_RCVHWM), but not the parts of a message that does not end: it keeps them all, and
shows none. The kernel knows how many bytes of a connection libzmq has taken. What it
took since a message was last received, while none waits, is the one that is open.

Source: zmq_socket_monitor(3); libzmq 4.3, ``session_base_t::engine_error``, ``pipe_t::write``;
tcp(7), linux/tcp.h (TCP_INFO), linux/sockios.h (SIOCINQ).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import socket
import struct
import termios

import zmq
from zmq.utils.monitor import recv_monitor_message

log = logging.getLogger(__name__)

EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED
GIVEN_UP_S = 1.0  # after a loss without another attempt; those of libzmq begin within 0.2 s
LOG_EVERY_S = 5.0  # of what a sender does again and again
BYTES_RECEIVED = struct.Struct("128xQ")
"""tcpi_bytes_received in struct tcp_info, since Linux 4.1."""


class StreamConnection:
    """Connects a socket to an address; ``look`` keeps it so, and bounds what of a message is open.

    Attributes
    ----------
    has_heard : set by who receives from the socket, when something came since the last look
    """

    def __init__(self, socket: zmq.Socket[bytes], address: str, max_open_bytes: int) -> None:
        self.has_heard = False
        self._socket = socket
        self._address = address
        self._max_open_bytes = max_open_bytes
        self._monitor = socket.get_monitor_socket(EVENTS)
        self._lost_at: float | None = None  # and nobody has tried again since
        self._descriptor: int | None = None  # libzmq's own, while it is connected
        self._n_received = 0  # bytes that had been taken when a message was last received
        self._n_taken = 0  # bytes, at the last look
        self._next_line = 0.0
        self._n_dropped = 0  # messages, since the last line
        socket.connect(address)

    def look(self, now: float) -> None:
        """Connect again when that is needed; `now` is monotonic seconds.

        Between two looks the socket has to be read, until it has no message or for a while.
        """
        self._follow_events(now)
        if self._lost_at is not None and now - self._lost_at > GIVEN_UP_S:
            log.warning("%s: what answered there does not speak ZeroMQ; connecting again", self._address)
            self._connect_again()
            self._lost_at = now
        if not self.has_heard and self._n_taken - self._n_received > self._max_open_bytes:
            self._drop_what_is_open(now)
        at_least, at_most = (0, 0) if self._descriptor is None else _bytes_taken(self._descriptor)
        self._n_taken = at_least
        if self.has_heard:
            self._n_received = at_most
        self.has_heard = False

    def _follow_events(self, now: float) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            is_lost = event["event"] == zmq.EVENT_DISCONNECTED
            if is_lost and event["value"] != self._descriptor:
                continue  # of one that was closed here, and another is under way
            is_new = event["event"] == zmq.EVENT_CONNECTED
            self._lost_at = now if is_lost else None
            self._begin_anew(int(event["value"]) if is_new else None)

    def _begin_anew(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._n_received = self._n_taken = 0

    def _drop_what_is_open(self, now: float) -> None:
        """Close the connection, for only that makes libzmq drop it, and open it again."""
        self._connect_again()
        self._begin_anew(None)
        self._n_dropped += 1
        if now < self._next_line:
            return
        what = "a message" if self._n_dropped == 1 else f"{self._n_dropped} messages"
        log.warning(
            "%s: dropped %s of more than %d bytes without an end; connecting again",
            self._address,
            what,
            self._max_open_bytes,
        )
        self._next_line, self._n_dropped = now + LOG_EVERY_S, 0

    def _connect_again(self) -> None:
        with contextlib.suppress(zmq.ZMQError):  # there is nothing left to disconnect
            self._socket.disconnect(self._address)
        self._socket.connect(self._address)


def _bytes_taken(descriptor: int) -> tuple[int, int]:
    """Return how many bytes libzmq has read from its socket, at least and at most; 0, 0 if closed."""
    waiting = array.array("i", [0])
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return 0, 0
    try:
        before = _bytes_received(connection)
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
        return before - waiting[0], _bytes_received(connection) - waiting[0]
    except (OSError, struct.error):  # no TCP socket any more, or a kernel that does not tell
        return 0, 0
    finally:
        connection.detach()  # it stays libzmq's


def _bytes_received(connection: socket.socket) -> int:
    (n_bytes,) = BYTES_RECEIVED.unpack_from(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
    return int(n_bytes)
