"""Records what a detector sends: every datagram as it comes, into a recording."""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.config import DaqConfig
from daq_core.detectors import format_of
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.kernels.compiling import copy_bytes, kernel_of, recvmmsg
from daq_core.linux.sockets import (
    MESSAGE_LENGTH,
    MSG_DONTWAIT,
    DatagramBatch,
    close_all,
    kernel_drops,
    open_receiver,
)
from daq_core.recordings.packet_reader import PacketReader, each_unit
from daq_core.recordings.recording import CONFIG_NAME, LENGTH_BYTES, MAX_DATAGRAM

BATCH = 64
BUFFER_BYTES = 256 * 2**20
IDLE_S = 0.02
REST_S = 0.0005
MAX_OPEN_FRAMES = 256


@kernel_of(
    types.int64(
        types.int32,
        types.uint8[::1],
        types.int64,
        types.uint32[:, ::1],
        types.uint8[::1],
        types.int64[::1],
    )
)
def receive_records(
    descriptor: int, datagrams: Any, stride: int, messages: Any, records: Any, offsets: Any
) -> int:
    """Receive what is there, and write it as the records of a recording.

    Parameters
    ----------
    descriptor : non-blocking UDP socket
    datagrams, stride, messages : a DatagramBatch
    records : (batch * (8 + MAX_DATAGRAM),) uint8   filled: length and datagram, one after the other
    offsets : (batch + 1,) int64                    filled: where each record starts; the last: the end

    Returns
    -------
    int  number of datagrams
    """
    n = recvmmsg(descriptor, messages.ctypes.data, np.uint32(messages.shape[0]), np.int32(MSG_DONTWAIT), 0)
    at = np.int64(0)
    for i in range(max(n, 0)):
        offsets[i] = at
        length = np.int64(messages[i, MESSAGE_LENGTH])
        for byte in range(LENGTH_BYTES):
            records[at + byte] = (length >> (8 * byte)) & 0xFF
        copy_bytes(records, at + LENGTH_BYTES, datagrams, i * stride, length)
        at += LENGTH_BYTES + length
    offsets[max(n, 0)] = at
    return max(n, 0)


@dataclass(frozen=True)
class RecordReport:
    """What was recorded."""

    n_packets: int
    n_images: int
    """Images of which every packet came."""
    kernel_drops: int
    """Datagrams that the kernel had to drop because we did not take them in time."""
    seconds: float


def record(
    config: DaqConfig,
    folder: str | Path,
    *,
    udp_host: str = "0.0.0.0",
    port_offset: int = 0,
    n_images: int | None = None,
    duration_s: float | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> RecordReport:
    """Record the packets of a config's detector; blocks until one of the three ends it.

    Parameters
    ----------
    folder : made if need be; its parent exists
    udp_host : address to listen on
    port_offset : added to each UDP port to listen on; the files keep the config's own numbers
    n_images : end when so many images are complete
    duration_s : end after this time
    stop : end when set
    progress : called with the number of complete images: 0 as soon as packets are
        received, then whenever it has changed

    Raises
    ------
    InvalidRequest
        The folder holds a recording already, or a number is out of range.
    Unavailable
        A port is taken, or the folder cannot be written.
    """
    folder = Path(folder)
    if n_images is not None and n_images < 1:
        raise InvalidRequest(f"n_images must be 1 or more, got {n_images}.")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        raise InvalidRequest(f"the duration must be more than 0 seconds, got {duration_s}.")
    format_of(config)  # refuses a detector without packets before anything is made
    ports = config.layout.udp_ports
    sockets: list[socket.socket] = []
    try:
        for port in ports:
            sockets.append(open_receiver(udp_host, port + port_offset, BUFFER_BYTES))
        with _files(config, folder, ports) as files:
            return _Recorder(config, sockets, files).run(
                n_images, duration_s, stop or threading.Event(), progress
            )
    except OSError as error:
        if isinstance(error, Unavailable):
            raise
        raise Unavailable(f"{folder} cannot be written: {error.strerror}.") from None
    finally:
        close_all(sockets)


@contextlib.contextmanager
def _files(config: DaqConfig, folder: Path, ports: list[int]) -> Iterator[list[BinaryIO]]:
    """Make the folder, its config and an empty file for each port, never over an existing recording."""
    if (folder / CONFIG_NAME).exists() or any(folder.glob("*.dat")):
        raise InvalidRequest(f"{folder} holds a recording already; choose another folder or remove it first.")
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        (folder / CONFIG_NAME).write_text(json.dumps(config.as_dict(), indent=2) + "\n", encoding="utf-8")
        yield [stack.enter_context((folder / f"{port}.dat").open("xb", buffering=0)) for port in ports]


class _Recorder:
    """Sockets, their files, and the count of complete images."""

    def __init__(self, config: DaqConfig, sockets: list[socket.socket], files: list[BinaryIO]) -> None:
        self._sockets = sockets
        self._files = files
        self._batch = DatagramBatch(BATCH, MAX_DATAGRAM)
        self._records = np.zeros(BATCH * (LENGTH_BYTES + MAX_DATAGRAM), np.uint8)
        self._offsets = np.zeros(BATCH + 1, np.int64)
        self._complete = CompleteImages(config)
        self._n_packets = 0

    def run(
        self,
        n_images: int | None,
        duration_s: float | None,
        stop: threading.Event,
        progress: Callable[[int], None] | None,
    ) -> RecordReport:
        poller = select.poll()
        for one in self._sockets:
            poller.register(one, select.POLLIN)
        start = time.monotonic()
        end = start + duration_s if duration_s else math.inf
        told = -1
        while not stop.is_set() and time.monotonic() < end:
            if progress and self._complete.n != told:
                told = self._complete.n
                progress(told)
            if n_images is not None and self._complete.n >= n_images:
                break
            fullest = max(self._drain(port) for port in range(len(self._sockets)))
            if fullest == 0:
                poller.poll(IDLE_S * 1000)
            elif fullest < BATCH:
                time.sleep(REST_S)  # let packets gather: many in one call cost less
        return RecordReport(
            n_packets=self._n_packets,
            n_images=self._complete.n,
            kernel_drops=sum(map(kernel_drops, self._sockets)),
            seconds=time.monotonic() - start,
        )

    def _drain(self, port: int) -> int:
        """Move a batch from a socket to its file; return how many datagrams it had."""
        batch = self._batch
        n: int = receive_records(
            self._sockets[port].fileno(),
            batch.datagrams,
            batch.stride,
            batch.messages,
            self._records,
            self._offsets,
        )
        if n:
            _write_all(self._files[port], memoryview(self._records.data)[: self._offsets[n]])
            self._complete.count(port, self._records, self._offsets[: n + 1])
            self._n_packets += n
        return n


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


class CompleteImages:
    """Counts the images of which every packet came, in whatever order and how often."""

    def __init__(self, config: DaqConfig) -> None:
        self._reader = PacketReader(config)
        self._missing: dict[int, npt.NDArray[np.bool_]] = {}  # of open images, by frame number
        self.n = 0

    def count(self, port: int, records: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        """Take note of the records of one port that start at offsets[:-1]."""
        lengths = np.diff(offsets) - LENGTH_BYTES
        headers = self._reader.headers(records, offsets[:-1] + LENGTH_BYTES, lengths)
        first, n = self._reader.units(port, headers, lengths)
        for frame in np.unique(headers["frame_number"][n > 0]).tolist():
            of_frame = headers["frame_number"] == frame
            missing = self._missing.pop(frame, None)
            if missing is None:
                missing = np.ones(self._reader.layout.n_units, bool)
            missing[each_unit(first[of_frame], n[of_frame])] = False
            if missing.any():
                self._missing[frame] = missing
            else:
                self.n += 1
        while len(self._missing) > MAX_OPEN_FRAMES:
            del self._missing[next(iter(self._missing))]
