"""Jungfrau, raw: modules of 512 × 1024 pixels of 16 bit, in datagrams of 48 + 8192 bytes.

A packet is four rows without gaps; the two gain bits on top of each pixel are
kept. One UDP port a module. A module of fewer rows in ``module_positions`` is
partial readout: the detector then sends its centre rows, and packet numbers
start above 0.

Source: contract of std_daq and datagrams of the manufacturer's virtual Jungfrau
(256 rows: packets 32..95).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from daq_core.assembly import LAYOUT
from daq_core.detectors import sls
from daq_core.detectors.format import DetectorFormat, Layout
from daq_core.geometry import Placement, place_modules

if TYPE_CHECKING:
    from daq_core.config import DaqConfig

PAYLOAD_BYTES = 8192
ROWS, COLUMNS = 512, 1024
ROWS_PER_PACKET = PAYLOAD_BYTES // (2 * COLUMNS)
DETECTOR_TYPE = 3


def layout(config: DaqConfig) -> Layout:
    """Work out where each packet of a Jungfrau goes; ValueError says what does not fit."""
    image_shape = (config.image_pixel_height, config.image_pixel_width)
    placements = place_modules(
        config.module_positions,
        n_modules=config.n_modules,
        image_shape=image_shape,
        module_width=COLUMNS,
        module_heights=range(2 * ROWS_PER_PACKET, ROWS + 1, 2 * ROWS_PER_PACKET),
    )
    first_unit = 0
    rows = []
    for index, p in enumerate(placements):
        n_packets = p.n_rows // ROWS_PER_PACKET
        rows.append(_port(config, p, index, n_packets, first_unit))
        first_unit += n_packets
    return Layout(
        image_shape, np.dtype(np.uint16), np.array(rows, LAYOUT), tuple(p.module for p in placements)
    )


def _port(config: DaqConfig, p: Placement, index: int, n_packets: int, first_unit: int) -> tuple[int, ...]:
    # Rows that follow each other in memory are copied at once.
    contiguous = p.column_step == 1 and p.row_step == COLUMNS
    rows = 1 if contiguous else ROWS_PER_PACKET
    return sls.layout_row(
        udp_port=config.start_udp_port + p.module,
        module=p.module,
        module_index=index,
        datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
        payload_bytes=PAYLOAD_BYTES,
        first_packet=(ROWS // ROWS_PER_PACKET - n_packets) // 2,
        first_unit=first_unit,
        n_units=n_packets,
        first_pixel=p.first_pixel,
        row_step=p.row_step * ROWS_PER_PACKET // rows,
        column_step=p.column_step,
        segment_step=0,
        rows=rows,
        segments=1,
        segment_pixels=COLUMNS * ROWS_PER_PACKET // rows,
        item_bytes=2,
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
    place=sls.place,
    erase=sls.erase,
    pack=pack,
    stamp=stamp,
    header=sls.HEADER,
)
