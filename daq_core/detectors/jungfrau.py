"""Jungfrau: modules of 512 × 1024 pixels of 16 bit, in datagrams of 48 + 8192 bytes.

A packet is four rows without gaps; the two gain bits on top of each pixel are
kept, or used by ``daq_core.writing.conversion``. One UDP port a module, or two, one for
each half. A module of fewer rows in ``module_positions`` is partial readout: the
detector then sends its centre rows, and packet numbers start above 0.

Source: contract of std_daq and datagrams of the manufacturer's virtual Jungfrau
(256 rows: packets 32..95; with two interfaces, 128 rows: 48..63 and 0..15).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.detectors import sls
from daq_core.detectors.format import LAYOUT, DetectorFormat, Layout, layout_row
from daq_core.detectors.geometry import Placement, place_modules
from daq_core.detectors.keys import DetectorKeys

PAYLOAD_BYTES = 8192
ROWS, COLUMNS = 512, 1024
ROWS_PER_PACKET = PAYLOAD_BYTES // (2 * COLUMNS)
DETECTOR_TYPE = 3


def layout(config: DetectorKeys) -> Layout:
    """Work out where each packet of a Jungfrau goes; ValueError says what does not fit."""
    image_shape = (config.image_pixel_height, config.image_pixel_width)
    placements = place_modules(
        config.module_positions,
        n_modules=config.n_modules,
        image_shape=image_shape,
        module_width=COLUMNS,
        module_heights=range(2 * ROWS_PER_PACKET, ROWS + 1, 2 * ROWS_PER_PACKET),
    )
    halves = config.n_udp_interfaces
    first_unit = 0
    rows = []
    for index, p in enumerate(placements):
        for half in range(halves):
            rows.append(_port(config, p, index, half, first_unit))
            first_unit += int(p.n_rows // ROWS_PER_PACKET // halves)
    return Layout(
        image_shape,
        np.dtype(np.float32 if is_converted(config) else np.uint16),
        np.array(rows, LAYOUT),
        tuple(p.module for p in placements),
        pixel_bits=14 if is_converted(config) else 16,  # a gain stage is none of the picture
        raw_dtype=np.dtype(np.uint16),
    )


def is_converted(config: DetectorKeys) -> bool:
    """Tell whether a config's images are converted to float32; ValueError when its keys contradict."""
    given = [key for key in ("gain_file", "pedestal_file") if getattr(config, key)]
    if config.detector_type == "jungfrau-raw":
        return False
    if len(given) == 1 or (not given and config.detector_type == "jungfrau-converted"):
        raise ValueError(
            f"conversion needs both gain_file and pedestal_file, got {given[0] if given else 'none'}"
        )
    return bool(given)


def _port(config: DetectorKeys, p: Placement, index: int, half: int, first_unit: int) -> tuple[int, ...]:
    """Return the layout of a module's port: the whole module, or with two interfaces its half 0 or 1.

    Of fewer rows the detector sends those around its centre, which is where the halves meet.
    """
    n_packets = p.n_rows // ROWS_PER_PACKET // config.n_udp_interfaces
    n_full = ROWS // ROWS_PER_PACKET // config.n_udp_interfaces
    if config.n_udp_interfaces == 1:
        first_packet = (n_full - n_packets) // 2
    else:
        first_packet = n_full - n_packets if half == 0 else 0
    # Rows that follow each other in memory are copied at once.
    contiguous = p.column_step == 1 and p.row_step == COLUMNS
    rows = 1 if contiguous else ROWS_PER_PACKET
    return layout_row(
        udp_port=config.start_udp_port + p.module * config.n_udp_interfaces + half,
        module=p.module,
        module_index=index,
        datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
        payload_bytes=PAYLOAD_BYTES,
        first_packet=first_packet,
        first_row=half * ROWS // 2 + first_packet * ROWS_PER_PACKET,
        first_unit=first_unit,
        n_units=n_packets,
        units_per_packet=1,
        first_pixel=p.first_pixel + half * n_packets * ROWS_PER_PACKET * p.row_step,
        row_step=p.row_step * ROWS_PER_PACKET // rows,
        column_step=p.column_step,
        segment_step=0,
        rows=rows,
        segments=1,
        segment_pixels=COLUMNS * ROWS_PER_PACKET // rows,
        item_bytes=2,
        packing=0,
        header_mask=sls.IDENTITY_MASK,
        header_value=sls.identity(DETECTOR_TYPE),
        edges=0,
    )


def pack(image: npt.NDArray[Any], layout: Layout, frame: int) -> list[npt.NDArray[np.uint8]]:
    """Return the datagrams of an image for each port; the bunch id is the frame number, as float64."""
    return sls.pack(image, layout.ports, detector_type=DETECTOR_TYPE, frame=frame, bunch_id=_bunch_id(frame))


def stamp(datagrams: npt.NDArray[np.uint8], frame: int) -> None:
    """Make packed datagrams those of another frame."""
    sls.stamp(datagrams, frame, _bunch_id(frame))


def _bunch_id(frame: int) -> int:
    return int(np.float64(frame).view(np.uint64))


JUNGFRAU = DetectorFormat(
    name="jungfrau",
    bit_depths=(16,),
    layout=layout,
    wire="sls",
    pack=pack,
    stamp=stamp,
    units=sls.units,
    header=sls.HEADER,
    module=(COLUMNS, ROWS),
    datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
    ports="`start_udp_port` + number of the module; with two interfaces + 2 × number, and the next",
)
