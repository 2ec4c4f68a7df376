"""GigaFRoST: four quadrants of 12-bit pixels over eight links, in datagrams of 32 + at most 7400 bytes.

Each quadrant sends its rows alternately over two links, beginning at the
horizontal middle of the image and going outwards; a link's frame is half the
image wide and a quarter of it high. How many rows a datagram holds depends on
the sender, so it is taken from the datagram's length, and completeness is
counted in rows.

====  =====  ===============================================================
byte  type   field (little-endian)
====  =====  ===============================================================
0     u8     protocol id 0xCB
1     u8     quadrant row length in blocks of 12 pixels
2     u8     quadrant rows, low byte; bit 0 swap
3     u8     status: quadrant, link, correction mode, quadrant rows high bits
4     u32    scan id
8     u32    frame number: the image id
12    u16    image status; bit 15: do not store
14    u16    first row of the datagram, within the link's frame
16    u64    frame timestamp (40 bit), exposure time (24 bit)
24    u32    sync time, then scan time
32           pixels, two in three bytes: p0 = b0 | (b1 & 15) << 8, p1 = b1 >> 4 | b2 << 4
====  =====  ===============================================================

Source: std_daq's C++ receiver and converter (packetisation, quadrants) and its
unit test vectors; ports and quadrants are numbered as there: 0, 1 south-west,
2, 3 south-east, 4, 5 north-west, 6, 7 north-east, "south" being the higher rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.detectors.format import LAYOUT, DetectorFormat, Layout, layout_row
from daq_core.detectors.keys import DetectorKeys
from daq_core.detectors.packed import pack_pixels

HEADER = np.dtype(
    [
        ("protocol_id", "u1"),
        ("row_blocks", "u1"),
        ("rows_low", "u1"),
        ("status", "u1"),
        ("scan_id", "<u4"),
        ("frame_number", "<u4"),
        ("image_status", "<u2"),
        ("first_row", "<u2"),
        ("timing", "<u8"),
        ("sync_time", "<u4"),
        ("scan_time", "<u4"),
    ]
)
HEADER_BYTES = HEADER.itemsize
assert HEADER_BYTES == 32

PROTOCOL_ID = 0xCB
ROWS_MASK = 0x03FE0000
IDENTITY_MASK = 0x0000FFFF | ROWS_MASK
"""Protocol, length of a row and rows of a quadrant (0 where a sender does not say), in the first 64-bit word.
Quadrant and link are not looked at, the port tells them; nor the swap bit and the kind of correction."""
MAX_PAYLOAD_BYTES = 7400
PADDING_BYTES = 36
LINKS = 8
MAX_SIDE = 2016
MIN_WIDTH = 72
"""At 48 the padding would be as long as a row, and the length would not tell the rows."""
DO_NOT_STORE = 0x8000


def layout(config: DetectorKeys) -> Layout:
    """Work out where each link's rows go; ValueError says what does not fit."""
    height, width = config.image_pixel_height, config.image_pixel_width
    if width % 24 or not MIN_WIDTH <= width <= MAX_SIDE or height % 4 or not 4 <= height <= MAX_SIDE:
        raise ValueError(
            f"a GigaFRoST has no image of {width} x {height} pixels (image_pixel_width x "
            f"image_pixel_height): the width is a multiple of 24 from {MIN_WIDTH} to {MAX_SIDE}, "
            f"the height a multiple of 4 up to {MAX_SIDE}"
        )
    if config.n_modules != LINKS:
        raise ValueError(f"n_modules is {config.n_modules}, but a GigaFRoST has {LINKS} links")
    if config.module_positions:
        raise ValueError("module_positions must be {} for a GigaFRoST: its links have fixed places")
    rows = [_port(config, port) for port in range(config.n_udp_ports)]
    return Layout(
        (height, width), np.dtype(np.uint16), np.array(rows, LAYOUT), tuple(range(LINKS)), pixel_bits=12
    )


def _port(config: DetectorKeys, port: int) -> tuple[int, ...]:
    height, width = config.image_pixel_height, config.image_pixel_width
    link_columns, link_rows = width // 2, height // 4
    module = port % LINKS  # with 16 ports, even and odd images come on two sets of eight
    quadrant, link = divmod(module, 2)
    south = quadrant < 2
    first_row = height // 2 + link if south else height // 2 - 1 - link
    return layout_row(
        udp_port=config.start_udp_port + port,
        module=module,
        module_index=module,
        datagram_bytes=HEADER_BYTES + MAX_PAYLOAD_BYTES,
        payload_bytes=MAX_PAYLOAD_BYTES,
        first_packet=0,
        first_row=0,
        first_unit=module * link_rows,
        n_units=link_rows,
        units_per_packet=rows_per_packet(link_columns, link_rows),
        first_pixel=first_row * width + (quadrant % 2) * link_columns,
        row_step=2 * width if south else -2 * width,
        column_step=1,
        segment_step=0,
        rows=1,
        segments=1,
        segment_pixels=link_columns,
        item_bytes=2,
        packing=12,
        header_mask=IDENTITY_MASK,
        header_value=_identity(link_columns, link_rows),
        edges=0,
    )


def _identity(link_columns: int, link_rows: int) -> int:
    """Return what the headers of a link have where IDENTITY_MASK looks."""
    quadrant_rows = 2 * link_rows
    return PROTOCOL_ID | link_columns // 12 << 8 | (quadrant_rows & 0xFF) << 16 | quadrant_rows >> 8 << 24


def rows_per_packet(link_columns: int, link_rows: int) -> int:
    """Return how many rows the camera puts into a datagram.

    Source: std_daq's C++ receiver, integer division throughout.
    """
    blocks = link_columns // 12
    columns = MAX_PAYLOAD_BYTES // (36 * blocks) * blocks // 2
    return max(1, min(columns * 48 // link_columns, link_rows))


def packetised(layout: Layout, rows: int) -> Layout:
    """Return the layout of a sender that puts so many rows into a datagram; ValueError when they do not fit.

    std_daq's Python simulators, for one, divide floats where the camera divides integers.
    """
    most = (MAX_PAYLOAD_BYTES - PADDING_BYTES) // (int(layout.ports[0].segment_pixels) * 3 // 2)
    if not 1 <= rows <= most:
        raise ValueError(f"a datagram holds 1 to {most} rows of this GigaFRoST, got {rows}")
    ports = layout.ports.copy()
    ports["units_per_packet"] = np.minimum(rows, ports["n_units"])
    return replace(layout, ports=ports)


def pack(image: npt.NDArray[Any], layout: Layout, frame: int) -> list[npt.NDArray[np.uint8]]:
    """Return the datagrams of an image for each port; see :func:`lengths` for how much of each is sent.

    Parameters
    ----------
    image : (H, W) uint16, values of 12 bit

    Returns
    -------
    for each port, (packets, datagram_bytes) uint8; none for the ports whose turn it is not
    """
    flat = np.ascontiguousarray(image).reshape(-1)
    packets = []
    for port, here in enumerate(layout.ports):
        datagrams = _pack_link(flat, here)
        stamp(datagrams, frame)
        packets.append(datagrams if port // LINKS == frame % layout.turns else datagrams[:0])
    return packets


def _pack_link(flat: npt.NDArray[np.uint16], here: Any) -> npt.NDArray[np.uint8]:
    """Return (packets, datagram_bytes) uint8 of one link's frame."""
    link_rows, columns, rows = int(here.n_units), int(here.segment_pixels), int(here.units_per_packet)
    firsts = np.arange(0, link_rows, rows)
    datagrams = np.zeros((len(firsts), int(here.datagram_bytes)), np.uint8)
    header = datagrams[:, :HEADER_BYTES].view(HEADER)[:, 0]
    header["protocol_id"] = PROTOCOL_ID
    header["row_blocks"] = columns // 12
    header["rows_low"] = (2 * link_rows) & 0xFF
    header["status"] = (here.module // 2) << 6 | (here.module % 2) << 5 | (2 * link_rows) >> 8
    header["first_row"] = firsts
    for datagram, first in zip(datagrams, firsts.tolist(), strict=True):
        wire_rows = np.arange(first, min(first + rows, link_rows))[:, None]
        pixels = flat[int(here.first_pixel) + wire_rows * int(here.row_step) + np.arange(columns)]
        payload = pack_pixels(pixels.reshape(-1), 12)
        datagram[HEADER_BYTES : HEADER_BYTES + len(payload)] = payload
    return datagrams


def lengths(datagrams: npt.NDArray[np.uint8], here: Any) -> npt.NDArray[np.int64]:
    """Return the bytes of each packed datagram: its rows, and padding where the camera pads.

    Padding follows an odd number of rows whose pixels do not fill whole blocks of 48.
    """
    header = datagrams[:, :HEADER_BYTES].view(HEADER)[:, 0]
    columns = int(here.segment_pixels)
    firsts = header["first_row"].astype(np.int64)
    n_rows = np.diff(firsts, append=int(here.n_units))
    padding = np.where((n_rows % 2 == 1) & (columns % 48 != 0), PADDING_BYTES, 0)
    return np.asarray(HEADER_BYTES + n_rows * columns * 3 // 2 + padding)


def units(
    headers: npt.NDArray[Any], lengths: npt.NDArray[np.int64], here: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first row and the number of rows of each datagram; 0 for what ``place`` calls malformed.

    headers : (n,) HEADER
    lengths : (n,) int64, bytes of each datagram
    """
    firsts = headers["first_row"].astype(np.int64)
    said = headers.view(np.uint64).reshape(-1, HEADER_BYTES // 8)[:, 0] & np.uint64(IDENTITY_MASK)
    without_rows = int(here.header_value) & ~ROWS_MASK
    is_packet = (
        (lengths <= here.datagram_bytes)
        & (firsts < here.n_units)
        & np.isin(said, np.array([here.header_value, without_rows], np.uint64))
    )
    n_rows = np.maximum(lengths - HEADER_BYTES, 0) // int(here.segment_pixels * 3 // 2)
    return firsts, np.where(is_packet, np.minimum(n_rows, here.n_units - firsts), 0)


def mark_unwanted(datagrams: npt.NDArray[np.uint8], unwanted: bool) -> None:
    """Set or clear the flag "do not store" in (packets, datagram_bytes) uint8."""
    header = datagrams[:, :HEADER_BYTES].view(HEADER)[:, 0]
    header["image_status"] = DO_NOT_STORE if unwanted else 0


def stamp(datagrams: npt.NDArray[np.uint8], frame: int) -> None:
    """Write the frame number into (packets, datagram_bytes) uint8; the camera counts modulo 2³²."""
    datagrams[:, :HEADER_BYTES].view(HEADER)[:, 0]["frame_number"] = frame % 2**32


GIGAFROST = DetectorFormat(
    name="gigafrost",
    bit_depths=(16,),
    layout=layout,
    wire="gigafrost",
    pack=pack,
    stamp=stamp,
    units=units,
    lengths=lengths,
    packetised=packetised,
    mark_unwanted=mark_unwanted,
    header=HEADER,
    ports="8 or 16 ports from `start_udp_port` on",
)
