"""Moench: modules of 400 × 400 pixels of 16 bit, in datagrams of 48 + 6400 bytes.

A packet is eight rows without gaps. One UDP port a module.

Source: slsDetectorPackage (``moench`` in ``slsReceiverSoftware/src/GeneralData.h``:
sizes, 50 packets, detector type 5); the header is that of all SLS detectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.detectors import sls
from daq_core.detectors.format import LAYOUT, DetectorFormat, Layout, layout_row
from daq_core.detectors.geometry import place_modules
from daq_core.detectors.keys import DetectorKeys

ROWS, COLUMNS = 400, 400
ROWS_PER_PACKET = 8
N_PACKETS = ROWS // ROWS_PER_PACKET
PAYLOAD_BYTES = 2 * COLUMNS * ROWS_PER_PACKET
DETECTOR_TYPE = 5


def layout(config: DetectorKeys) -> Layout:
    """Work out where each packet of a Moench goes; ValueError says what does not fit."""
    image_shape = (config.image_pixel_height, config.image_pixel_width)
    placements = place_modules(
        config.module_positions,
        n_modules=config.n_modules,
        image_shape=image_shape,
        module_width=COLUMNS,
        module_heights=range(ROWS, ROWS + 1),
    )
    rows = [
        layout_row(
            udp_port=config.start_udp_port + p.module,
            module=p.module,
            module_index=index,
            datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
            payload_bytes=PAYLOAD_BYTES,
            first_packet=0,
            first_row=0,
            first_unit=index * N_PACKETS,
            n_units=N_PACKETS,
            units_per_packet=1,
            first_pixel=p.first_pixel,
            row_step=p.row_step,
            column_step=p.column_step,
            segment_step=0,
            rows=ROWS_PER_PACKET,
            segments=1,
            segment_pixels=COLUMNS,
            item_bytes=2,
            packing=0,
            header_mask=sls.IDENTITY_MASK,
            header_value=sls.identity(DETECTOR_TYPE),
            edges=0,
        )
        for index, p in enumerate(placements)
    ]
    modules = tuple(p.module for p in placements)
    return Layout(image_shape, np.dtype(np.uint16), np.array(rows, LAYOUT), modules, pixel_bits=16)


def pack(image: npt.NDArray[Any], layout: Layout, frame: int) -> list[npt.NDArray[np.uint8]]:
    """Return the datagrams of an image for each port."""
    return sls.pack(image, layout.ports, detector_type=DETECTOR_TYPE, frame=frame)


MOENCH = DetectorFormat(
    name="moench",
    bit_depths=(16,),
    layout=layout,
    wire="sls",
    pack=pack,
    stamp=sls.stamp,
    units=sls.units,
    header=sls.HEADER,
    module=(COLUMNS, ROWS),
    datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
)
