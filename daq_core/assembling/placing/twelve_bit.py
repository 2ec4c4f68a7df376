"""Eiger's pixels of 12 bit, unpacked to their place in the image.

A payload of 4096 bytes is no multiple of the three that two pixels share (see
``detectors.packed``), so every packet but each third begins or ends inside a pair:
its outermost bytes are kept behind the image in its slot until the neighbour
arrives, and the pair is missing when either is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import is_marked
from daq_core.detectors.packed import EDGE_BYTES
from daq_core.kernels.compiling import kernel
from daq_core.kernels.strips import LINE, unpack_12, unpack_12_mirrored


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
    pair, end_pair = -(-begin // 3), end // 3
    row_pairs = here.segments * here.segment_pixels // 2
    while pair < end_pair:  # row by row
        n_pairs = min(end_pair, (pair // row_pairs + 1) * row_pairs) - pair
        _put_pairs(ring.pixels[slot], pixels, here, pair, n_pairs, source, at + pair * 3 - begin)
        pair += n_pairs
    if begin % 3 and is_marked(ring, slot, here.first_unit + packet - 1):
        _join(pixels, here, edges, packet - 1, begin)
    if end % 3 and packet + 1 < here.n_units and is_marked(ring, slot, here.first_unit + packet + 1):
        _join(pixels, here, edges, packet, end)


@kernel
def row_bytes(here: Any) -> tuple[int, int, int]:
    """Return the bytes of a row in the image, and where its gap is and how long (see ``kernels.strips``)."""
    segment = here.segment_pixels * here.item_bytes
    if here.segments == 1:
        return segment, segment, 0
    step = abs(here.segment_step) * here.item_bytes
    return step + segment, segment, step - segment


@kernel
def _put_pairs(image: Any, pixels: Any, here: Any, pair: int, n_pairs: int, source: Any, begin: int) -> None:
    """Unpack pairs of one row, which begin at byte `begin` of the source."""
    n, seam, gap = row_bytes(here)
    row_pairs = (n - gap) // 4
    seam -= pair % row_pairs * 4  # as seen from the first of the pairs
    if seam <= 0 or seam >= n_pairs * 4:
        seam, gap = n_pairs * 4, 0
    n = n_pairs * 4 + gap
    first = _pixel_of(here, 2 * pair) * 2
    if n_pairs * 4 < LINE:
        for i in range(n_pairs):
            k = np.uintp(begin + 3 * i)
            _put_pair(pixels, here, pair + i, source[k], source[k + np.uintp(1)], source[k + np.uintp(2)])
    elif here.column_step == 1:
        unpack_12(image, first, source, begin, n, seam, gap)
    else:
        unpack_12_mirrored(image, first + 2 - n, source, begin, n, seam, gap)


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
