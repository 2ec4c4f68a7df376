"""The 48-byte header of the SLS detectors (Eiger, Jungfrau, Moench) and the packets behind it.

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

from daq_core.detectors.packed import pack_pixels

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

HEADER_VERSION = 2
IDENTITY_MASK = 0xFFFF << 48
"""Detector type and header version in the sixth 64-bit word. Nothing else in the header tells detectors
apart: ids, row and column are not unique in practice, and some senders leave much at 0."""


def identity(detector_type: int) -> int:
    """Return what a detector's headers have where IDENTITY_MASK looks."""
    return detector_type << 48 | HEADER_VERSION << 56


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
        header["header_version"] = HEADER_VERSION
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
    detector_type = int(here.header_value) >> 48 & 0xFF
    is_ours = np.isin(headers["detector_type"], (0, detector_type))
    is_ours &= np.isin(headers["header_version"], (0, HEADER_VERSION))
    is_packet = is_ours & (lengths == here.datagram_bytes) & (packets >= 0) & (packets < here.n_units)
    return packets, is_packet.astype(np.int64)


def pixel_numbers(here: Any) -> npt.NDArray[np.int64]:
    """Return the number in the row-major image of each pixel of a port's frame, in the order of the wire."""
    n_pixels = int(here.n_units * here.payload_bytes * 8 // (here.packing or here.item_bytes * 8))
    n_rows = n_pixels // int(here.segments * here.segment_pixels)
    row = np.arange(n_rows)[:, None, None] * int(here.row_step)
    segment = np.arange(int(here.segments))[None, :, None] * int(here.segment_step)
    column = np.arange(int(here.segment_pixels))[None, None, :] * int(here.column_step)
    return np.asarray(int(here.first_pixel) + row + segment + column).reshape(-1)
