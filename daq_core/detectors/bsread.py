"""bsread and array-1.0: cameras that send whole images, as messages (see ``receiving.stream_messages``)."""

from __future__ import annotations

import numpy as np

from daq_core.detectors.format import LAYOUT, Layout, StreamFormat
from daq_core.detectors.keys import DetectorKeys

PIXEL_TYPES = {8: np.uint8, 16: np.uint16, 32: np.uint32}


def layout(config: DetectorKeys) -> Layout:
    """Return the layout of a stream: one module, no UDP ports; ValueError says what does not fit."""
    if config.n_modules != 1:
        raise ValueError(f"n_modules is {config.n_modules}, but bsread sends whole images: it must be 1")
    if config.module_positions:
        raise ValueError("module_positions must be {} for bsread: it sends whole images")
    if not config.stream_addresses:
        raise ValueError('stream_addresses is empty: bsread needs at least one, like ["tcp://camera:9999"]')
    return Layout(
        (config.image_pixel_height, config.image_pixel_width),
        np.dtype(PIXEL_TYPES[config.bit_depth]),
        np.zeros(0, LAYOUT),
        modules=(0,),
        pixel_bits=config.bit_depth,
    )


BSREAD = StreamFormat(name="bsread", bit_depths=tuple(PIXEL_TYPES), layout=layout)
