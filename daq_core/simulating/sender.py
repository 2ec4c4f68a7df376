"""Sends datagrams to many UDP ports as a detector does: all at once, at a steady rate.

The simulator and the replay hand in one :class:`Burst` an image; ``Sender`` puts
its datagrams on the wire from compiled code, a few for each port in turn. Inside
an image they are spread over the time there is, because a receive buffer of
208 KiB (Linux's default) holds only a dozen packets of a Jungfrau. Every image starts at
its own time on the monotonic clock; one that starts late does not press those
behind it together, they catch up at most a quarter faster than the rate.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.errors import InvalidRequest, Unavailable
from daq_core.kernels.compiling import kernel_of, last_error, now_ns, sendmmsg, sleep_ns
from daq_core.linux.sockets import MESSAGE_BYTES, build_messages, close_all

TURN = 4
"""Datagrams a port sends before it is the next one's turn."""
SPREAD = 0.8
"""Part of an image's period over which its datagrams are spread."""
MAX_SPREAD_S = 0.05
"""No image is spread over more than this: a detector sends in milliseconds, then pauses."""
MIN_SLEEP_NS = 200_000
"""Ahead of time by less than this, go on: a sleep costs more than it is worth."""
RETRY_NS = 100_000
MAX_RETRIES = 5_000

SENT, REFUSED, N_COUNTS = 0, 1, 2
Image = TypeVar("Image")
ECONNREFUSED, ENOBUFS, EAGAIN, EINTR = errno.ECONNREFUSED, errno.ENOBUFS, errno.EAGAIN, errno.EINTR


@kernel_of(
    types.int64(
        types.int32[::1],
        types.uint32[:, ::1],
        types.int64[:, ::1],
        types.int64,
        types.int64[::1],
        types.int64[::1],
    )
)
def transmit(descriptors: Any, messages: Any, turns: Any, spread_ns: int, counts: Any, timespec: Any) -> int:
    """Send the datagrams of one image, spread evenly over a time.

    Parameters
    ----------
    descriptors : (ports,) int32        connected UDP sockets
    messages    : (n, 16) uint32        struct mmsghdr of each datagram
    turns       : (turns, 3) int64      port, first message, number of messages
    spread_ns   : int                   0: as fast as possible
    counts      : (N_COUNTS,) int64     added to: datagrams sent, and answered "nobody listens"
    timespec    : (2,) int64            scratch

    Returns
    -------
    int  0, or the errno that ended it
    """
    start = now_ns(1, timespec)
    n_turns = turns.shape[0]
    for turn in range(n_turns):
        if spread_ns > 0:
            ahead = start + spread_ns * turn // n_turns - now_ns(1, timespec)
            if ahead > MIN_SLEEP_NS:
                sleep_ns(ahead, timespec)
        at = turns[turn, 1]
        end = at + turns[turn, 2]
        n_retries = 0
        while at < end:
            n = sendmmsg(
                descriptors[turns[turn, 0]],
                messages.ctypes.data + at * MESSAGE_BYTES,
                np.uint32(end - at),
                np.int32(0),
            )
            if n > 0:
                at += n
                counts[SENT] += n
                n_retries = 0
                continue
            error = last_error()
            n_retries += 1
            if n_retries > MAX_RETRIES:
                return error
            if error == ECONNREFUSED:  # the answer to an earlier datagram; this one was not tried yet
                counts[REFUSED] += 1
            elif error in (ENOBUFS, EAGAIN):
                sleep_ns(RETRY_NS, timespec)
            elif error != EINTR:
                return error
    return 0


@dataclass(frozen=True)
class SendReport:
    """What was sent."""

    n_images: int
    n_packets: int
    n_refused: int
    """Times the other machine answered that nobody listens on a port."""
    seconds: float
    """From the first datagram to the last."""
    rate_hz: float
    """Images a second, from the start of the first to the start of the last; 0 for fewer than two."""


class Burst:
    """The datagrams of one image, in the order they go out: some of each port in turn.

    Parameters
    ----------
    addresses : for each port, (n,) uint64   where each datagram lies in memory
    lengths   : for each port, (n,) uint64   its bytes
    memory    : kept alive as long as the burst
    turns     : (turns, 3) int64, as ``transmit`` takes them; None: ports take turns of TURN datagrams
    at_once   : whether they all go out without a pause
    announce  : called at the moment when they go out
    """

    def __init__(
        self,
        addresses: list[npt.NDArray[np.uint64]],
        lengths: list[npt.NDArray[np.uint64]],
        memory: object,
        *,
        turns: npt.NDArray[np.int64] | None = None,
        at_once: bool = False,
        announce: Callable[[], None] | None = None,
    ) -> None:
        self.messages, self._vectors = build_messages(np.concatenate(addresses), np.concatenate(lengths))
        self.turns = _take_turns([len(port) for port in addresses]) if turns is None else turns
        self.at_once = at_once
        self.announce = announce
        self._memory = memory

    @classmethod
    def of_packets(
        cls, packets: list[npt.NDArray[np.uint8]], lengths: list[npt.NDArray[np.int64]] | None = None
    ) -> Burst:
        """Make a burst of (n, datagram_bytes) uint8 for each port, sent from where they lie.

        ``lengths`` says how much of each datagram is sent; all of it without.
        """
        lengths = lengths or [np.full(len(p), p.shape[1]) for p in packets]
        return cls(
            [p.ctypes.data + np.arange(len(p), dtype=np.uint64) * np.uint64(p.strides[0]) for p in packets],
            [length.astype(np.uint64) for length in lengths],
            packets,
        )

    @classmethod
    def in_order(
        cls,
        datagrams: list[npt.NDArray[np.uint8]],
        sockets: list[int],
        *,
        at_once: bool,
        announce: Callable[[], None],
    ) -> Burst:
        """Make a burst of datagrams, (bytes,) uint8 each, in this order, each for a socket by its number."""
        addresses = np.array([datagram.ctypes.data for datagram in datagrams], np.uint64)
        lengths = np.array([len(datagram) for datagram in datagrams], np.uint64)
        turns = np.ones((len(datagrams), 3), np.int64)
        turns[:, 0], turns[:, 1] = sockets, np.arange(len(datagrams))
        return cls([addresses], [lengths], datagrams, turns=turns, at_once=at_once, announce=announce)


def port_order(n_datagrams: list[int]) -> list[tuple[int, int]]:
    """Return port and place of each datagram of an image, in the order in which a burst sends them."""
    before = np.cumsum([0, *n_datagrams])
    return [
        (port, first - int(before[port]) + i)
        for port, first, n in _take_turns(n_datagrams).tolist()
        for i in range(n)
    ]


def _take_turns(n_datagrams: list[int]) -> npt.NDArray[np.int64]:
    """Return (turns, 3) int64: port, first message and number of messages, in the order of sending."""
    rows = []
    before = 0
    for port, n in enumerate(n_datagrams):
        start = np.arange(0, n, TURN)
        rows.append(
            np.column_stack([np.full(len(start), port), before + start, np.minimum(TURN, n - start), start])
        )
        before += n
    turns = np.concatenate(rows)
    return np.ascontiguousarray(turns[np.lexsort((turns[:, 0], turns[:, 3])), :3], np.int64)


class PacedSender(ABC, Generic[Image]):
    """Sends one image a period; what an image is and how it goes out is its subclass's."""

    def __init__(self) -> None:
        self._counts = np.zeros(N_COUNTS, np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the sockets."""

    @abstractmethod
    def _transmit(self, image: Image, spread_s: float) -> None:
        """Send one image, spread over a time; counts what was SENT and REFUSED."""

    def send(
        self,
        images: Iterable[Image],
        rate_hz: float,
        *,
        progress: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> SendReport:
        """Send one image a period, and report.

        Parameters
        ----------
        images : taken one at a time; each is sent before the next is asked for
        rate_hz : images a second; 0: as fast as possible
        progress : called with the number of images sent so far, after each
        stop : ends the sending before the next image when set

        Raises
        ------
        InvalidRequest
            The rate is negative or not a number.
        Unavailable
            The network does not take the images. That nobody listens is no error, but counted.
        """
        if not (math.isfinite(rate_hz) and rate_hz >= 0):
            raise InvalidRequest(
                f"the rate must be 0 (as fast as possible) or more images a second, got {rate_hz}."
            )
        period = 1 / rate_hz if rate_hz else 0.0
        stop = stop or threading.Event()
        n_sent, n_refused = self._counts.tolist()
        n_images = 0
        start = newest = time.monotonic()
        for image in images:
            if _stopped_before(start + n_images * period, stop):
                break
            newest = time.monotonic()
            self._transmit(image, min(SPREAD * period, MAX_SPREAD_S))
            n_images += 1
            if progress:
                progress(n_images)
        return SendReport(
            n_images=n_images,
            n_packets=int(self._counts[SENT]) - n_sent,
            n_refused=int(self._counts[REFUSED]) - n_refused,
            seconds=time.monotonic() - start,
            rate_hz=(n_images - 1) / (newest - start) if n_images > 1 else 0.0,
        )


class Sender(PacedSender[Burst]):
    """Connected UDP sockets, one for each port of a detector.

    Usage: ``with Sender("127.0.0.1", [30101, 30102]) as sender: sender.send(bursts, rate_hz=100)``.

    With a `foreign_address` there are as many sockets again, for the same ports, that send from there.

    Raises
    ------
    InvalidRequest
        A port is not one.
    Unavailable
        The host is not known, or not to be reached.
    """

    def __init__(self, host: str, ports: list[int], *, foreign_address: str | None = None) -> None:
        super().__init__()
        if min(ports) < 1 or max(ports) > 65535:
            raise InvalidRequest(
                f"UDP ports {min(ports)}..{max(ports)} are not all in 1..65535; see the port offset."
            )
        self.sockets: list[socket.socket] = []
        try:
            for source in (None, foreign_address) if foreign_address else (None,):
                for port in ports:
                    self.sockets.append(
                        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                    )
                    if source is not None:
                        self.sockets[-1].bind((source, 0))
                    self.sockets[-1].connect((host, port))
        except (OSError, UnicodeError) as error:  # Unicode: what cannot be a host name
            close_all(self.sockets)
            where = f"{host}, from {foreign_address} too" if foreign_address else host
            raise Unavailable(f"cannot send to {where}: {getattr(error, 'strerror', error)}.") from None
        self._host = host
        self._descriptors = np.array([s.fileno() for s in self.sockets], np.int32)
        self._timespec = np.zeros(2, np.int64)

    def close(self) -> None:
        close_all(self.sockets)

    def _transmit(self, image: Burst, spread_s: float) -> None:
        if image.announce is not None:
            image.announce()
        error = transmit(
            self._descriptors,
            image.messages,
            image.turns,
            0 if image.at_once else int(spread_s * 1e9),
            self._counts,
            self._timespec,
        )
        if error:
            raise Unavailable(f"sending to {self._host} failed: {os.strerror(error)}.")


def _stopped_before(deadline: float, stop: threading.Event) -> bool:
    """Wait for a time of the monotonic clock; tell whether `stop` was set meanwhile."""
    ahead = deadline - time.monotonic()
    return stop.wait(ahead) if ahead > 0 else stop.is_set()
