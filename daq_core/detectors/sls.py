"""The 48-byte header of the SLS detectors (Eiger, Jungfrau, Moench) and the kernel that places their packets.

All send a module's frame row by row in packets of equal length; they differ only
in the numbers of a layout row, and an Eiger packs 4 and 12 bits. All fields are
little-endian.

====  =====  ===========================================================
byte  type   field
====  =====  ===========================================================
0     u64    frame number
8     u32    exposure length
12    u32    packet number
16    u64    detSpec1: bunch id at PSI (Jungfrau: float64; Jungfraujoch: int64)
24    u64    timestamp
32    u16    module id, then row, column, detSpec2
40    u32    detSpec3
44    u16    detSpec4
46    u8     detector type, then header version (2)
====  =====  ===========================================================

Source: slsDetectorPackage, ``slsSupportLib/include/sls/sls_detector_defs.h``
(struct sls_detector_header), and decoded datagrams of its virtual servers. The
module id is not unique over a detector, so the UDP port says which module it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.assembly import ERASE, NO_ROOM, PUT, TAKE, Local, claim
from daq_core.compiled import kernel, kernel_of
from daq_core.detectors.packed import erase_12_bit, pack_pixels, put_12_bit, row_bytes
from daq_core.ring import Word
from daq_core.sockets import MESSAGE_LENGTH
from daq_core.strips import (
    copy_strip,
    expect_strip,
    mirror_strip_1,
    mirror_strip_2,
    mirror_strip_4,
    unpack_4,
    unpack_4_mirrored,
)

HEADER = np.dtype(
    [
        ("frame_number", "<u8"),
        ("exposure_length", "<u4"),
        ("packet_number", "<u4"),
        ("bunch_id", "<u8"),
        ("timestamp", "<u8"),
        ("module_id", "<u2"),
        ("row", "<u2"),
        ("column", "<u2"),
        ("spec2", "<u2"),
        ("spec3", "<u4"),
        ("round_robin", "<u2"),
        ("detector_type", "u1"),
        ("header_version", "u1"),
    ]
)
HEADER_BYTES = HEADER.itemsize
assert HEADER_BYTES == 48

ID_FRAME, ID_BUNCH_DOUBLE, ID_BUNCH_INTEGER = range(3)


@kernel
def put_packet(source: Any, at: int, layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Copy one packet's pixels into an image, or unpack those of 4 bit.

    Parameters
    ----------
    source : (bytes,) uint8        holds the payload from byte `at` on
    packet : int                   number within the port's part of the image, from 0
    pixels : (image bytes,) uint8  the assembled image
    """
    here = layout[port]
    item = here.item_bytes
    n, seam, gap = row_bytes(here)
    n_wire = (n - gap) // 2 if here.packing == 4 else n - gap
    lowest = (here.first_pixel + packet * here.rows * here.row_step) * item
    if here.column_step < 0:
        lowest -= n - item
    step = here.row_step * item
    for _ in range(here.rows):
        expect_strip(pixels, lowest + here.rows * step, n)  # the same row of the next packet
        if here.column_step < 0:
            _put_mirrored(pixels, lowest, source, at, n, seam, gap, here.packing, item)
        elif here.packing == 4:
            unpack_4(pixels, lowest, source, at, n, seam, gap)
        else:
            copy_strip(pixels, lowest, source, at, n, seam, gap)
        at += n_wire
        lowest += step


@kernel
def _put_mirrored(
    pixels: Any, lowest: int, source: Any, at: int, n: int, seam: int, gap: int, packing: int, item: int
) -> None:
    if packing == 4:
        unpack_4_mirrored(pixels, lowest, source, at, n, seam, gap)
    elif item == 1:
        mirror_strip_1(pixels, lowest, source, at, n, seam, gap)
    elif item == 2:
        mirror_strip_2(pixels, lowest, source, at, n, seam, gap)
    else:
        mirror_strip_4(pixels, lowest, source, at, n, seam, gap)


@kernel_of(ERASE)
def erase(layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Zero the pixels of a packet that did not arrive."""
    here = layout[port]
    if here.packing == 12:
        erase_12_bit(layout, port, packet, pixels)
        return
    n_bytes = here.segment_pixels * here.item_bytes
    row = here.first_pixel + packet * here.rows * here.row_step
    for _ in range(here.rows):
        first = row
        for _ in range(here.segments):
            lowest = first if here.column_step == 1 else first - here.segment_pixels + 1
            start = lowest * here.item_bytes
            pixels[start : start + n_bytes] = 0
            first += here.segment_step
        row += here.row_step


@kernel_of(TAKE)
def take(
    datagrams: Any,
    stride: int,
    messages: Any,
    first: int,
    n: int,
    layout: Any,
    port: int,
    now: int,
    real: int,
    ring: Any,
    local: Any,
    taken: Any,
) -> int:
    """Find the image of each received packet, and mark the packet there.

    Parameters
    ----------
    datagrams : (batch * stride,) uint8     datagrams as received, header first
    stride    : int                         distance of two datagrams, a multiple of 8
    messages  : (batch, 16) uint32          struct mmsghdr of each datagram
    first, n  : int                         the new datagrams are first .. n-1
    layout    : (ports,) LAYOUT             where each port's pixels go
    port      : int                         the row of this socket
    now, real : int                         monotonic and real time in ns
    ring      : Ring                        filled in place
    local     : (Local.COUNT,) int64        what the receive threads know
    taken     : (batch, 2) int64            filled: slot of each datagram, below 0 for none, and new units

    Returns
    -------
    int  n, or the number of the datagram whose image needs room: the window of open
         images is full, and the caller has to give up the oldest before it goes on here
    """
    here = layout[port]
    headers = datagrams.view(np.uint64)
    bunch_ids = datagrams.view(np.float64)
    slot = -1
    n_placed = 0
    for i in range(first, n):
        at = i * stride
        word = at >> 3
        taken[i, 0] = -1
        packet = np.int64(headers[word + 1] >> np.uint64(32)) - here.first_packet
        if messages[i, MESSAGE_LENGTH] != here.datagram_bytes or packet < 0 or packet >= here.n_units:
            ring.words[Word.MALFORMED] += 1
            continue
        frame = headers[word]
        image_id = frame
        if local[Local.ID_SOURCE] == ID_BUNCH_INTEGER:
            image_id = headers[word + 2]
        elif local[Local.ID_SOURCE] == ID_BUNCH_DOUBLE:
            if not 0.0 <= bunch_ids[word + 2] < 9.2e18:
                ring.words[Word.MALFORMED] += 1
                continue
            image_id = np.uint64(bunch_ids[word + 2])
        unit = here.first_unit + packet
        claimed = claim(ring, local, frame, image_id, unit, 1, slot, now, real)
        if claimed == NO_ROOM:
            n = i
            break
        if claimed >= 0:
            slot = claimed
            taken[i, 0], taken[i, 1] = slot, local[Local.CLAIMED]
            n_placed += 1
    ring.module_packets[here.module_index] += n_placed
    ring.words[Word.RECEIVED] += n - first
    ring.words[Word.PLACED] += n_placed
    return n


@kernel_of(PUT)
def put(
    datagrams: Any,
    stride: int,
    messages: Any,
    first: int,
    n: int,
    layout: Any,
    port: int,
    ring: Any,
    taken: Any,
) -> None:
    """Copy the pixels of taken packets to their final place; parameters as in :func:`take`."""
    here = layout[port]
    headers = datagrams.view(np.uint64)
    for i in range(first, n):
        slot = taken[i, 0]
        if slot >= 0:
            at = i * stride
            packet = np.int64(headers[(at >> 3) + 1] >> np.uint64(32)) - here.first_packet
            if here.packing == 12:
                put_12_bit(datagrams, at + HEADER_BYTES, layout, port, packet, ring, slot)
            else:
                put_packet(datagrams, at + HEADER_BYTES, layout, port, packet, ring.pixels[slot])


def pack(
    image: npt.NDArray[Any], layout: npt.NDArray[Any], *, detector_type: int, frame: int, bunch_id: int = 0
) -> list[npt.NDArray[np.uint8]]:
    """Return the datagrams a detector would send for an image: the inverse of placing them.

    Parameters
    ----------
    image  : (H, W) pixels, in the type of the file
    layout : (ports,) LAYOUT

    Returns
    -------
    for each port, (packets, datagram_bytes) uint8
    """
    flat = np.ascontiguousarray(image).reshape(-1)
    datagrams = []
    for here in layout:
        n_packets = int(here.n_units)
        packets = np.zeros((n_packets, int(here.datagram_bytes)), np.uint8)
        header = packets[:, :HEADER_BYTES].view(HEADER)[:, 0]
        header["packet_number"] = int(here.first_packet) + np.arange(n_packets)
        header["module_id"] = here.module
        header["detector_type"] = detector_type
        header["header_version"] = 2
        stamp(packets, frame, bunch_id)
        pixels = pack_pixels(flat[pixel_numbers(here)], int(here.packing))
        packets[:, HEADER_BYTES:] = pixels.reshape(n_packets, -1)
        datagrams.append(packets)
    return datagrams


def stamp(datagrams: npt.NDArray[np.uint8], frame: int, bunch_id: int = 0) -> None:
    """Write the frame number and the bunch id (its 64 bits) into (packets, datagram_bytes) uint8."""
    header = datagrams[:, :HEADER_BYTES].view(HEADER)[:, 0]
    header["frame_number"] = frame
    header["bunch_id"] = bunch_id


def units(
    headers: npt.NDArray[Any], lengths: npt.NDArray[np.int64], here: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which packet of its port each datagram is, and 1; 0 for what ``place`` calls malformed.

    headers : (n,) HEADER
    lengths : (n,) int64, bytes of each datagram
    """
    packets = headers["packet_number"].astype(np.int64) - int(here.first_packet)
    is_packet = (lengths == here.datagram_bytes) & (packets >= 0) & (packets < here.n_units)
    return packets, is_packet.astype(np.int64)


def pixel_numbers(here: Any) -> npt.NDArray[np.int64]:
    """Return the number in the row-major image of each pixel of a port's frame, in the order of the wire."""
    n_pixels = int(here.n_units * here.payload_bytes * 8 // (here.packing or here.item_bytes * 8))
    n_rows = n_pixels // int(here.segments * here.segment_pixels)
    row = np.arange(n_rows)[:, None, None] * int(here.row_step)
    segment = np.arange(int(here.segments))[None, :, None] * int(here.segment_step)
    column = np.arange(int(here.segment_pixels))[None, None, :] * int(here.column_step)
    return np.asarray(int(here.first_pixel) + row + segment + column).reshape(-1)
