"""Sends a recording again, datagram for datagram, frame after frame at a steady rate.

Every port's datagrams keep their order, lost and late ones included. Only the
frame numbers change, and only from the second loop on: they go on rising, so
that a receiver sees new images and not the old ones twice.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.detectors import format_of
from daq_core.errors import InvalidRequest
from daq_core.recordings.recording import PortRecording, Recording
from daq_core.simulating.sender import Burst, Sender, SendReport

DEFAULT_RATE_HZ = 10.0
REARMED = 1000
"""A frame number that falls by more than this is a detector that was armed again, not a late packet."""


def replay(
    recording: Recording,
    *,
    host: str = "127.0.0.1",
    port_offset: int = 0,
    rate_hz: float = DEFAULT_RATE_HZ,
    loops: int = 1,
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> SendReport:
    """Send a recording over UDP; blocks, without the GIL while packets go out.

    Parameters
    ----------
    host : the receiver's name or IPv4 address
    port_offset : added to each recorded UDP port
    rate_hz : frames a second; 0: as fast as possible
    loops : how many times; 0: until `stop` is set. The first is exact to the bit; after it
        the frame numbers go on rising, while a Jungfrau's bunch ids stay as recorded.
    progress : called with the number of frames sent so far, after each
    stop : ends the sending after the present frame when set

    Raises
    ------
    InvalidRequest
        A number is out of range.
    Unavailable
        The host is not known, or the network does not take the packets.
    """
    if loops < 0:
        raise InvalidRequest(f"loops must be 0 (until stopped) or more, got {loops}.")
    with Sender(host, [port.udp_port + port_offset for port in recording.ports]) as sender:
        return sender.send(_bursts(recording, loops), rate_hz, progress=progress, stop=stop)


def _bursts(recording: Recording, loops: int) -> Iterator[Burst]:
    """Yield one burst a frame, loop after loop."""
    ends = frame_ends([port.frames for port in recording.ports])
    frames = np.concatenate([port.frames for port in recording.ports])
    frames = frames[frames >= 0]
    turns = recording.config.layout.turns
    span = -(-(int(frames.max() - frames.min()) + 1) // turns) * turns if len(frames) else 0
    header = format_of(recording.config).header
    loop = 0
    while loops == 0 or loop < loops:
        for first, last in itertools.pairwise(ends):
            yield _burst(recording.ports, first, last, header, loop * span)
        loop += 1


def _burst(
    ports: tuple[PortRecording, ...],
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    header: np.dtype[Any],
    added: int,
) -> Burst:
    """Copy datagrams first[p] .. last[p] - 1 of each port p, and raise their frame numbers."""
    addresses, lengths, memory = [], [], []
    for port, i, j in zip(ports, first, last, strict=True):
        offsets = port.offsets[i:j]
        n_bytes = port.lengths[i:j].astype(np.uint64)
        start = int(offsets[0]) if j > i else 0
        end = int(offsets[-1] + port.lengths[j - 1]) if j > i else 0
        data = port.data[start:end].copy()
        if added:
            _raise_frame_numbers(data, offsets[port.frames[i:j] >= 0] - start, header, added)
        addresses.append((data.ctypes.data + offsets - start).astype(np.uint64))
        lengths.append(n_bytes)
        memory.append(data)
    return Burst(addresses, lengths, memory)


def _raise_frame_numbers(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], header: np.dtype[Any], added: int
) -> None:
    """Add to the frame number of each datagram that has one; it may lie at any byte, and start again at 0."""
    number_type, at = header.fields["frame_number"][:2]  # type: ignore[index]  # None is for a dtype that is no record
    where = offsets[:, None] + at + np.arange(number_type.itemsize)
    numbers = data[where].view(number_type) + number_type.type(added % 2 ** (8 * number_type.itemsize))
    data[where] = numbers.view(np.uint8)


def frame_ends(frames: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Cut the datagrams of all ports into frames without changing their order.

    A late datagram goes out with the frame before it, and one without a frame number too.
    A detector that was armed again counts on from where it was.

    Parameters
    ----------
    frames : for each port, (n,) int64, the frame number of each datagram, -1: none

    Returns
    -------
    (frames + 1, ports) int64
        Frame k has datagrams [k, p] .. [k + 1, p] - 1 of port p.
    """
    rising = _never_falling(frames)
    numbers = np.unique(np.concatenate(rising))
    ends = np.zeros((len(numbers) + 1, len(frames)), np.int64)
    for port, positions in enumerate(rising):
        ends[1:, port] = np.searchsorted(positions, numbers, side="right")
    return ends


def _never_falling(frames: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """Replace each port's frame numbers by ones that never fall and still agree between the ports."""
    rising = [_filled(port) for port in frames]
    arms = [np.cumsum(np.diff(port, prepend=port[:1]) < -REARMED) for port in rising]
    top = -1
    for arm in range(max((int(port[-1]) for port in arms if len(port)), default=-1) + 1):
        of_arm = [port == arm for port in arms]
        lowest = min(
            int(port[chosen].min()) for port, chosen in zip(rising, of_arm, strict=True) if chosen.any()
        )
        added = max(0, top + 1 - lowest)
        for port, chosen in zip(rising, of_arm, strict=True):
            port[chosen] = np.maximum.accumulate(port[chosen] + added)
        top = max(
            int(port[chosen].max()) for port, chosen in zip(rising, of_arm, strict=True) if chosen.any()
        )
    return rising


def _filled(frames: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give datagrams without a frame number that of the one before (at the start: of the one after)."""
    numbered = np.flatnonzero(frames >= 0)
    if len(numbered) == 0:
        return np.zeros_like(frames)
    before = np.searchsorted(numbered, np.arange(len(frames)), side="right") - 1
    return frames[numbered[np.maximum(before, 0)]]
