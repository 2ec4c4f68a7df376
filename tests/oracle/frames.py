"""What each UDP detector sends for an image, and the image of packets: slow, obvious, from the contract.

Nothing of ``daq_core`` is used here. What one UDP port sends of an image is a
*frame*: a string of bits in which pixel k has the bits b·k … b·k + b − 1, the
lowest first; that holds for 4, 8, 12, 16 and 32 bit alike. A frame is cut into
packets at bytes. Pixels are known when all bytes are that they share with their
neighbours: two pixels of 12 bit share three.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle.packets import HEADER as SLS_HEADER

GIGAFROST_HEADER = struct.Struct("<BBBBIIHHQII")
PADDING = b"\xee" * 36
"""A GigaFRoST's padding may have any content; here one that would show."""


@dataclass(frozen=True)
class Packet:
    """Where a packet has its bytes from, and how it says so."""

    number: int  # in the header: packet number, or first row
    first: int
    end: int
    padding: bytes = b""


@dataclass(frozen=True)
class Frame:
    """What one UDP port sends of an image.

    y, x : (pixels,) where each pixel of the frame goes, in the order of the wire
    """

    port: int  # from start_udp_port on
    y: Any
    x: Any
    packets: tuple[Packet, ...]
    detector_type: int = 0  # of the SLS header
    gigafrost: tuple[int, int, int] | None = None  # module, link columns, link rows

    def header(self, packet: Packet, image_id: int) -> bytes:
        if self.gigafrost is None:
            return SLS_HEADER.pack(
                image_id, 7, packet.number, 11, 99, 1234, 0, 0, 0, 0, 0, self.detector_type, 2
            )
        module, columns, rows = self.gigafrost
        status = module // 2 << 6 | module % 2 << 5 | 2 * rows >> 8
        return GIGAFROST_HEADER.pack(
            0xCB, columns // 12, 2 * rows & 0xFF, status, 5, image_id % 2**32, 0, packet.number, 77, 88, 99
        )


def frames_of(config: Any, image_id: int = 0, *, rows: int | None = None) -> list[Frame]:
    """Return what each port of a detector sends of an image; `rows`: of a GigaFRoST's packets."""
    if config.detector_type == "gigafrost":
        return _gigafrost(config, image_id, rows)
    frames = []
    for module, corners in sorted(config.module_positions.items()):
        match config.detector_type:
            case "eiger":
                frames.append(_eiger(module, corners, config.bit_depth))
            case "moench":
                frames.append(_moench(module, corners))
            case "jungfrau" if config.n_udp_interfaces == 1:
                frames.append(_jungfrau(module, corners))
            case "jungfrau":
                frames += _jungfrau_halves(module, corners)
            case other:
                raise NotImplementedError(f"what does a {other} send?")
    return frames


def bits_of(config: Any) -> int:
    """Return the bits of a pixel on the wire."""
    return 12 if config.detector_type == "gigafrost" else int(config.bit_depth)


def datagrams(frame: Frame, image: npt.NDArray[Any], bits: int, image_id: int) -> list[bytes]:
    """Return the datagrams that a port sends of an image, in order."""
    wire = _encoded(image[frame.y, frame.x], bits)
    return [frame.header(p, image_id) + wire[p.first : p.end] + p.padding for p in frame.packets]


def image_of(
    arrived: list[tuple[Frame, list[bytes | None]]], shape: tuple[int, int], dtype: Any, bits: int
) -> npt.NDArray[Any]:
    """Return the image of the datagrams that arrived; None stands for one that did not."""
    image = np.zeros(shape, dtype)
    shared = math.lcm(bits, 8) // 8  # bytes, with all of which a group of pixels is known
    for frame, sent in arrived:
        wire = np.zeros(frame.packets[-1].end, np.uint8)
        known = np.zeros(len(wire), bool)
        for packet, datagram in zip(frame.packets, sent, strict=True):
            if datagram is not None:
                n_header = len(frame.header(packet, 0))
                n_bytes = packet.end - packet.first
                wire[packet.first : packet.end] = np.frombuffer(datagram, np.uint8, n_bytes, n_header)
                known[packet.first : packet.end] = True
        pixels = _decoded(wire, bits)
        groups = known[: len(wire) // shared * shared].reshape(-1, shared).all(axis=1)
        pixels[~np.repeat(groups, shared * 8 // bits)] = 0
        image[frame.y, frame.x] = pixels
    return image


def _encoded(pixels: npt.NDArray[Any], bits: int) -> bytes:
    numbers = pixels.astype("<u8").view(np.uint8).reshape(-1, 8)
    each = np.unpackbits(numbers, axis=1, count=bits, bitorder="little")
    return np.packbits(each.reshape(-1), bitorder="little").tobytes()


def _decoded(wire: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint64]:
    each = np.unpackbits(wire, bitorder="little").reshape(-1, bits)
    numbers = np.zeros((len(each), 8), np.uint8)
    numbers[:, : math.ceil(bits / 8)] = np.packbits(each, axis=1, bitorder="little")
    return numbers.view("<u8")[:, 0]


def _placed(corners: tuple[int, int, int, int], rows: Any, columns: Any) -> tuple[Any, Any]:
    """Return y and x in the image of pixels of a module."""
    x_start, y_start, x_end, y_end = corners
    y = y_start + rows if y_end >= y_start else y_start - rows
    x = x_start + columns if x_end >= x_start else x_start - columns
    return y, x


def _eiger(module: int, corners: tuple[int, int, int, int], bits: int) -> Frame:
    rows, columns = np.divmod(np.arange(256 * 512), 512)
    columns = np.where(columns < 256, columns, columns + 2)  # two chips, two pixels between them
    cuts = range(0, 256 * 512 * bits // 8, 4096)
    packets = tuple(Packet(number, cut, cut + 4096) for number, cut in enumerate(cuts))
    return Frame(module, *_placed(corners, rows, columns), packets, detector_type=1)


def _moench(module: int, corners: tuple[int, int, int, int]) -> Frame:
    rows, columns = np.divmod(np.arange(400 * 400), 400)
    packets = tuple(Packet(i, i * 6400, (i + 1) * 6400) for i in range(50))
    return Frame(module, *_placed(corners, rows, columns), packets, detector_type=5)


def _jungfrau(module: int, corners: tuple[int, int, int, int]) -> Frame:
    n_rows = abs(corners[3] - corners[1]) + 1
    first_packet = (512 - n_rows) // 2 // 4  # fewer rows are those around the centre
    rows, columns = np.divmod(np.arange(n_rows * 1024), 1024)
    packets = tuple(Packet(first_packet + i, i * 8192, (i + 1) * 8192) for i in range(n_rows // 4))
    return Frame(module, *_placed(corners, rows, columns), packets, detector_type=3)


def _jungfrau_halves(module: int, corners: tuple[int, int, int, int]) -> list[Frame]:
    """Two ports a module: of the upper half the last rows, of the lower half the first."""
    n_rows = (abs(corners[3] - corners[1]) + 1) // 2
    n_packets = n_rows // 4
    frames = []
    for half, first_packet in ((0, 64 - n_packets), (1, 0)):
        rows, columns = np.divmod(np.arange(n_rows * 1024), 1024)
        y, x = _placed(corners, rows + half * n_rows, columns)
        packets = tuple(Packet(first_packet + i, i * 8192, (i + 1) * 8192) for i in range(n_packets))
        frames.append(Frame(2 * module + half, y, x, packets, detector_type=3))
    return frames


def camera_rows(width: int, height: int) -> int:
    """Return the rows that a GigaFRoST itself puts into a packet: all divisions without rest."""
    columns, rows = width // 2, height // 4
    blocks = columns // 12
    chunk = 7400 // (36 * blocks) * blocks // 2
    return min(chunk * 48 // columns, rows)


def simulator_rows(width: int, height: int) -> int:
    """Return the rows that std_daq's Python simulators put into a packet: fractions are cut off late."""
    columns = width // 2
    blocks = columns // 12
    chunk = int(7400 / (36 * blocks) * blocks / 2)
    return min(int(chunk * 48 / columns), height // 4)


def _gigafrost(config: Any, image_id: int, rows: int | None) -> list[Frame]:
    height, width = config.image_pixel_height, config.image_pixel_width
    n_columns, n_rows = width // 2, height // 4
    rows = min(rows or camera_rows(width, height), n_rows)
    first_port = 8 if config.n_udp_ports == 16 and image_id % 2 else 0
    frames = []
    for module in range(8):
        quadrant, link = divmod(module, 2)
        row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
        down = 2 * row + link
        y = height // 2 + down if quadrant < 2 else height // 2 - 1 - down
        x = column + (n_columns if quadrant % 2 else 0)
        packets = []
        for first in range(0, n_rows, rows):
            n = min(rows, n_rows - first)
            padding = PADDING if n % 2 and n_columns % 48 else b""
            begin, end = first * n_columns * 3 // 2, (first + n) * n_columns * 3 // 2
            packets.append(Packet(first, begin, end, padding))
        shape = (module, n_columns, n_rows)
        frames.append(Frame(first_port + module, y, x, tuple(packets), gigafrost=shape))
    return frames
