"""Recordings: a folder with the datagrams of each UDP port, as they arrived, and the detector's config.

::

    <folder>/config.json    the detector config
    <folder>/<port>.dat     repeated: length (u64, little-endian), datagram

A recording is read through memory maps, so it may be larger than the memory.
"""

from __future__ import annotations

import logging
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.config import DaqConfig
from daq_core.detectors import format_of
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.kernels.compiling import kernel_of

log = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
LENGTH_BYTES = 8
MAX_DATAGRAM = 65507
"""Most a UDP datagram over IPv4 can hold (RFC 768, RFC 791)."""


@kernel_of(
    types.int64(
        types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1], types.int64[::1], types.int64
    )
)
def next_records(data: Any, offsets: Any, lengths: Any, at: int) -> int:
    """Find the records of a file from byte `at` on, until the arrays are full or a record does not fit.

    Parameters
    ----------
    data    : (bytes,) uint8     the file
    offsets : (n + 1,) int64     filled: first byte of each datagram; the last: where the next record starts
    lengths : (n,) int64         filled: bytes of each datagram

    Returns
    -------
    int  number of records found
    """
    n = 0
    next_one = np.int64(at)
    while n < lengths.shape[0] and next_one + LENGTH_BYTES <= data.shape[0]:
        length = np.uint64(0)
        for i in range(LENGTH_BYTES):
            length |= np.uint64(data[next_one + i]) << np.uint64(8 * i)
        first = next_one + LENGTH_BYTES
        if length > MAX_DATAGRAM or first + np.int64(length) > data.shape[0]:
            break
        offsets[n] = first
        lengths[n] = length
        next_one = first + np.int64(length)
        n += 1
    offsets[n] = next_one
    return n


@dataclass(frozen=True)
class PortRecording:
    """The datagrams of one UDP port, in the order they came.

    udp_port : of the detector's config
    data     : (bytes,) uint8, the file
    offsets  : (n,) int64, first byte of each datagram in it
    lengths  : (n,) int64
    frames   : (n,) int64, frame number of each; -1 where a datagram is too short to have one
    """

    udp_port: int
    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]

    def datagram(self, i: int) -> bytes:
        return self.data[self.offsets[i] : self.offsets[i] + self.lengths[i]].tobytes()


@dataclass(frozen=True)
class Recording:
    """What a detector sent, one PortRecording for each port of the config's layout."""

    folder: Path
    config: DaqConfig
    ports: tuple[PortRecording, ...]

    @property
    def n_packets(self) -> int:
        return sum(len(port.offsets) for port in self.ports)


def load_recording(folder: str | Path) -> Recording:
    """Open a recording.

    A last record that was cut off, as by a full disk, is left out with a warning.

    Raises
    ------
    InvalidConfig
        Its config cannot be.
    InvalidRequest
        The folder is no recording, or a file of it is damaged; the text names file and byte.
    """
    folder = Path(folder)
    if not (folder / CONFIG_NAME).is_file():
        raise InvalidRequest(
            f"{folder} is not a recording: it has no {CONFIG_NAME}. "
            f"A recording is a folder with {CONFIG_NAME} and one <UDP port>.dat for each module."
        )
    config = DaqConfig.load(folder / CONFIG_NAME)
    frame_field = format_of(config).header.fields["frame_number"]  # type: ignore[index]  # None is for a dtype that is no record
    ports = tuple(_load_port(folder, port, *frame_field[:2]) for port in config.layout.udp_ports)
    if not any(len(port.offsets) for port in ports):
        raise InvalidRequest(f"{folder} is an empty recording: its files hold no packet.")
    return Recording(folder, config, ports)


def _load_port(folder: Path, udp_port: int, frame_type: np.dtype[Any], frame_at: int) -> PortRecording:
    path = folder / f"{udp_port}.dat"
    try:
        with path.open("rb") as file:
            n_bytes = path.stat().st_size
            data = np.frombuffer(
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if n_bytes else b"", np.uint8
            )
    except FileNotFoundError:
        raise InvalidRequest(
            f"{path} is missing: {CONFIG_NAME} there has a module on UDP port {udp_port}."
        ) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from None
    offsets, lengths, end = _find_records(data)
    if end < len(data):
        _judge_rest(path, data, end)
    return PortRecording(
        udp_port, data, offsets, lengths, _frames(data, offsets, lengths, frame_type, frame_at)
    )


def _find_records(
    data: npt.NDArray[np.uint8], block: int = 65536
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Return offsets and lengths of all datagrams, and where the last record ends."""
    all_offsets, all_lengths, at = [], [], 0
    while True:
        offsets, lengths = np.empty(block + 1, np.int64), np.empty(block, np.int64)
        n = next_records(data, offsets, lengths, at)
        all_offsets.append(offsets[:n])
        all_lengths.append(lengths[:n])
        at = int(offsets[n])
        if n < block:
            return np.concatenate(all_offsets), np.concatenate(all_lengths), at


def _judge_rest(path: Path, data: npt.NDArray[np.uint8], at: int) -> None:
    """Warn of a last record that was cut off; refuse what is no record at all."""
    head = data[at : at + LENGTH_BYTES].tobytes()
    length = int.from_bytes(head, "little")
    if len(head) == LENGTH_BYTES and length > MAX_DATAGRAM:
        raise InvalidRequest(
            f"{path} is damaged at byte {at}: a datagram of {length} bytes cannot be, "
            f"{MAX_DATAGRAM} are the most."
        )
    log.warning("%s: the last record, at byte %d, was cut off; it is left out.", path, at)


def _frames(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    frame_type: np.dtype[Any],
    frame_at: int,
) -> npt.NDArray[np.int64]:
    frames = np.full(len(offsets), -1, np.int64)
    has_one = lengths >= frame_at + frame_type.itemsize
    at = offsets[has_one, None] + frame_at + np.arange(frame_type.itemsize)
    frames[has_one] = data[at].view(frame_type)[:, 0]
    return frames
