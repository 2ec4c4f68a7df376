"""Eiger's pixels of 4 and 12 bit, unpacked to their place in the image; and packing, for any detector.

Two pixels of 4 bit share a byte, the first in the low nibble. Two of 12 bit
share three bytes: p0 = b0 | (b1 & 15) << 8, p1 = b1 >> 4 | b2 << 4. A payload of
4096 bytes is no multiple of three, so every packet but each third begins or ends
inside a pair: its outermost bytes are kept behind the image in its slot until
the neighbour arrives, and the pair is missing when either is.

Source: contract of std_daq (12 bit as in GigaFRoST) and datagrams of the
manufacturer's virtual Eiger (low nibble first; the 12-bit ramp).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.assembly import is_marked
from daq_core.compiled import kernel

EDGE_BYTES = 4  # kept of each packet: its first two bytes and its last two


@kernel
def put_4_bit(source: Any, at: int, layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Unpack one packet's 4-bit pixels to uint8; parameters as ``sls.put``."""
    here = layout[port]
    row = here.first_pixel + packet * here.rows * here.row_step
    for _ in range(here.rows):
        first = row
        for _ in range(here.segments):
            for i in range(here.segment_pixels // 2):
                byte = source[np.uintp(at + i)]
                target = first + 2 * i * here.column_step
                pixels[np.uintp(target)] = byte & np.uint8(15)
                pixels[np.uintp(target + here.column_step)] = byte >> np.uint8(4)
            at += here.segment_pixels // 2
            first += here.segment_step
        row += here.row_step


@kernel
def put_12_bit(source: Any, at: int, layout: Any, port: int, packet: int, ring: Any, slot: int) -> None:
    """Unpack one packet's 12-bit pixels to uint16, and the pairs it shares with packets that are here.

    Parameters
    ----------
    source : (bytes,) uint8   holds the payload from byte `at` on
    packet : int              number within the port's part of the image, from 0; marked as arrived
    """
    here = layout[port]
    pixels = ring.pixels[slot].view(np.uint16)
    edges = ring.pixels[slot][here.edges :]
    begin = packet * here.payload_bytes
    end = begin + here.payload_bytes
    edge = packet * EDGE_BYTES
    for i in range(2):
        edges[edge + i] = source[at + i]
        edges[edge + 2 + i] = source[at + here.payload_bytes - 2 + i]
    for pair in range(-(-begin // 3), end // 3):
        k = at + pair * 3 - begin
        _put_pair(pixels, here, pair, source[np.uintp(k)], source[np.uintp(k + 1)], source[np.uintp(k + 2)])
    if begin % 3 and is_marked(ring, slot, here.first_unit + packet - 1):
        _join(pixels, here, edges, packet - 1, begin)
    if end % 3 and packet + 1 < here.n_units and is_marked(ring, slot, here.first_unit + packet + 1):
        _join(pixels, here, edges, packet, end)


@kernel
def _join(pixels: Any, here: Any, edges: Any, packet: int, boundary: int) -> None:
    """Unpack the pair that lies across the end of a packet, at byte `boundary` of the frame."""
    tail, head = packet * EDGE_BYTES + 2, (packet + 1) * EDGE_BYTES
    if boundary % 3 == 1:
        _put_pair(pixels, here, boundary // 3, edges[tail + 1], edges[head], edges[head + 1])
    else:
        _put_pair(pixels, here, boundary // 3, edges[tail], edges[tail + 1], edges[head])


@kernel
def _put_pair(pixels: Any, here: Any, pair: int, b0: Any, b1: Any, b2: Any) -> None:
    target = _pixel_of(here, 2 * pair)
    pixels[np.uintp(target)] = np.uint16(b0) | (np.uint16(b1) & np.uint16(15)) << np.uint16(8)
    pixels[np.uintp(target + here.column_step)] = np.uint16(b1) >> np.uint16(4) | np.uint16(b2) << np.uint16(
        4
    )


@kernel
def _pixel_of(here: Any, wire_pixel: int) -> int:
    """Return where in the image a pixel of the frame goes, by its number on the wire."""
    column = wire_pixel % (here.segments * here.segment_pixels)
    row = wire_pixel // (here.segments * here.segment_pixels)
    segment = column // here.segment_pixels
    column -= segment * here.segment_pixels
    return here.first_pixel + row * here.row_step + segment * here.segment_step + column * here.column_step


@kernel
def erase_12_bit(layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Zero all pixels that need a packet which did not arrive."""
    here = layout[port]
    image = pixels.view(np.uint16)
    begin = packet * here.payload_bytes
    for pair in range(begin // 3, -(-(begin + here.payload_bytes) // 3)):
        _put_pair(image, here, pair, np.uint8(0), np.uint8(0), np.uint8(0))


def pack_pixels(pixels: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a frame's pixels, in the order of the wire: the inverse of unpacking.

    Parameters
    ----------
    pixels : (n,) values of `bits` bits, n even
    bits   : 4, 12, or the pixels' own size
    """
    even, odd = pixels[0::2], pixels[1::2]
    if bits == 4:
        return np.asarray((even & 15) | (odd & 15) << 4, np.uint8)
    if bits == 12:
        packed = np.stack([even & 0xFF, even >> 8 & 0xF | (odd & 0xF) << 4, odd >> 4 & 0xFF], axis=-1)
        return packed.astype(np.uint8).reshape(-1)
    return pixels.view(np.uint8)
