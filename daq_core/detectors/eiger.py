"""Eiger: half modules of 256 × 512 pixels, 4, 8, 12, 16 or 32 bit, in datagrams of 48 + 4096 bytes.

A wire row of 512 pixels belongs to two chips of 256; in the image a gap of two
pixels lies between them, so that a half module covers 514 × 256. Larger gaps
come from ``module_positions``. One UDP port a half module.

Source: contract of std_daq (module sizes, gap) and datagrams of a real Eiger
and of the manufacturer's virtual one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.detectors import sls
from daq_core.detectors.format import LAYOUT, DetectorFormat, Layout, layout_row
from daq_core.detectors.geometry import place_modules
from daq_core.detectors.keys import DetectorKeys
from daq_core.detectors.packed import EDGE_BYTES

PAYLOAD_BYTES = 4096
CHIP_COLUMNS = 256
CHIPS = 2
CHIP_GAP = 2
ROWS, COLUMNS = 256, CHIPS * CHIP_COLUMNS + (CHIPS - 1) * CHIP_GAP
DETECTOR_TYPE = 1
PIXEL_TYPES = {4: np.uint8, 8: np.uint8, 12: np.uint16, 16: np.uint16, 32: np.uint32}


def layout(config: DetectorKeys) -> Layout:
    """Work out where each packet of an Eiger goes; ValueError says what does not fit."""
    pixel_type = np.dtype(PIXEL_TYPES[config.bit_depth])
    image_shape = (config.image_pixel_height, config.image_pixel_width)
    placements = place_modules(
        config.module_positions,
        n_modules=config.n_modules,
        image_shape=image_shape,
        module_width=COLUMNS,
        module_heights=range(ROWS, ROWS + 1),
    )
    row_bits = CHIPS * CHIP_COLUMNS * config.bit_depth
    n_packets = ROWS * row_bits // (8 * PAYLOAD_BYTES)
    packed = config.bit_depth in (4, 12)
    image_bytes = image_shape[0] * image_shape[1] * pixel_type.itemsize
    rows = [
        layout_row(
            udp_port=config.start_udp_port + p.module,
            module=p.module,
            module_index=index,
            datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
            payload_bytes=PAYLOAD_BYTES,
            first_packet=0,
            first_row=0,
            first_unit=index * n_packets,
            n_units=n_packets,
            units_per_packet=1,
            first_pixel=p.first_pixel,
            row_step=p.row_step,
            column_step=p.column_step,
            segment_step=p.column_step * (CHIP_COLUMNS + CHIP_GAP),
            rows=8 * PAYLOAD_BYTES // row_bits,
            segments=CHIPS,
            segment_pixels=CHIP_COLUMNS,
            item_bytes=pixel_type.itemsize,
            packing=config.bit_depth if packed else 0,
            header_mask=sls.IDENTITY_MASK,
            header_value=sls.identity(DETECTOR_TYPE),
            edges=image_bytes + index * n_packets * EDGE_BYTES,
        )
        for index, p in enumerate(placements)
    ]
    return Layout(
        image_shape,
        pixel_type,
        np.array(rows, LAYOUT),
        tuple(p.module for p in placements),
        pixel_bits=config.bit_depth,
        edge_bytes=len(placements) * n_packets * EDGE_BYTES if config.bit_depth == 12 else 0,
    )


def pack(image: npt.NDArray[Any], layout: Layout, frame: int) -> list[npt.NDArray[np.uint8]]:
    """Return the datagrams of an image for each port."""
    return sls.pack(image, layout.ports, detector_type=DETECTOR_TYPE, frame=frame)


EIGER = DetectorFormat(
    name="eiger",
    bit_depths=tuple(PIXEL_TYPES),
    layout=layout,
    wire="sls",
    pack=pack,
    stamp=sls.stamp,
    units=sls.units,
    header=sls.HEADER,
    module=(COLUMNS, ROWS),
    datagram_bytes=sls.HEADER_BYTES + PAYLOAD_BYTES,
    ports="`start_udp_port` + number of the half module",
)
