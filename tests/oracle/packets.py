"""Packets of an Eiger, a Jungfrau or a Moench, made and placed pixel by pixel: slow, obvious.

Nothing of ``daq_core`` is used here. A packet is placed by three numbers of
its header and the port it came to; coordinates are counted in plain loops.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Corners = tuple[int, int, int, int]

HEADER = struct.Struct("<QIIQQHHHHIHBB")
"""Frame number, exposure, packet number, bunch id, timestamp, module id, row, column, …: 48 bytes."""

DETECTOR_TYPES = {"eiger": 1, "jungfrau": 3, "moench": 5}
PAYLOAD_BYTES = {"eiger": 4096, "jungfrau": 8192, "moench": 6400}


def datagram(
    frame: int, packet_number: int, payload: bytes, *, bunch_id: bytes = bytes(8), detector: str = "jungfrau"
) -> bytes:
    """Return a datagram; the module id in it is always 1234, as a virtual Jungfrau sends it."""
    bunch, kind = int.from_bytes(bunch_id, "little"), DETECTOR_TYPES[detector]
    return HEADER.pack(frame, 7, packet_number, bunch, 99, 1234, 0, 0, 0, 0, 0, kind, 2) + payload


def packet_numbers(detector: str, bit_depth: int, corners: Corners) -> range:
    """Return the packet numbers of one module in one image."""
    if detector == "eiger":
        return range(256 * 512 * bit_depth // 8 // 4096)
    if detector == "moench":
        return range(400 * 400 * 2 // 6400)
    n_rows = abs(corners[3] - corners[1]) + 1
    first_row = (512 - n_rows) // 2  # partial readout sends the rows around the centre
    return range(first_row // 4, (first_row + n_rows) // 4)


@cache
def _wire_pixels(detector: str, bit_depth: int, i_packet: int) -> tuple[Any, Any]:
    """Return row and column within the module for each pixel of its i-th packet."""
    rows, columns = [], []
    if detector == "eiger":
        for k in range(4096 * 8 // bit_depth):
            row, column = divmod(i_packet * 4096 * 8 // bit_depth + k, 512)
            rows.append(row)
            columns.append(column if column < 256 else column + 2)  # two chips, two pixels between them
    elif detector == "moench":
        for k in range(3200):
            rows.append(i_packet * 8 + k // 400)
            columns.append(k % 400)
    else:
        for k in range(4096):
            rows.append(i_packet * 4 + k // 1024)
            columns.append(k % 1024)
    return np.array(rows), np.array(columns)


def pixel_places(detector: str, bit_depth: int, corners: Corners, packet_number: int) -> tuple[Any, Any]:
    """Return y and x in the image for each pixel of a packet, in the order of the wire."""
    i_packet = packet_number - packet_numbers(detector, bit_depth, corners)[0]
    rows, columns = _wire_pixels(detector, bit_depth, i_packet)
    x_start, y_start, x_end, y_end = corners
    y = y_start + rows if y_end >= y_start else y_start - rows
    x = x_start + columns if x_end >= x_start else x_start - columns
    return y, x


def place_packet(
    image: npt.NDArray[Any], sent: bytes, *, detector: str, bit_depth: int, corners: Corners
) -> None:
    """Put the pixels of one datagram into the image of its frame."""
    packet_number = HEADER.unpack_from(sent)[2]
    y, x = pixel_places(detector, bit_depth, corners, packet_number)
    image[y, x] = np.frombuffer(sent, f"<u{bit_depth // 8}", offset=HEADER.size)
