"""The detectors this DAQ can receive: one file each, and one line in ``FORMATS``."""

from __future__ import annotations

from daq_core.detectors.bsread import BSREAD
from daq_core.detectors.eiger import EIGER
from daq_core.detectors.format import DetectorFormat, Layout, StreamFormat
from daq_core.detectors.gigafrost import GIGAFROST
from daq_core.detectors.jungfrau import JUNGFRAU
from daq_core.detectors.keys import DetectorKeys
from daq_core.detectors.moench import MOENCH
from daq_core.errors import InvalidRequest

__all__ = ["FORMATS", "DetectorFormat", "Layout", "StreamFormat", "format_of", "is_stream", "layout_of"]

# A new one stands at the end: its place is its number in the choice list of DAQ:CfgDetectorType.
FORMATS: dict[str, DetectorFormat | StreamFormat] = {
    "eiger": EIGER,
    "jungfrau": JUNGFRAU,
    "jungfrau-raw": JUNGFRAU,
    "jungfrau-converted": JUNGFRAU,
    "gigafrost": GIGAFROST,
    "moench": MOENCH,
    "bsread": BSREAD,
    "pco": BSREAD,
}

MAX_CHUNK_BYTES = 2**32 - 1
"""An image is one chunk of the file, and HDF5 keeps a chunk's size in 32 bits."""


def format_of(config: DetectorKeys) -> DetectorFormat:
    """Return the packet format of a config's detector; InvalidRequest where it sends no UDP packets."""
    form = _known_format(config)
    if isinstance(form, StreamFormat):
        raise InvalidRequest(f"a detector of type {config.detector_type} sends no UDP packets.")
    return form


def is_stream(config: DetectorKeys) -> bool:
    """Tell whether a config's detector sends whole images as messages."""
    return isinstance(_known_format(config), StreamFormat)


def _known_format(config: DetectorKeys) -> DetectorFormat | StreamFormat:
    if config.detector_type not in FORMATS:
        raise ValueError(
            f"detector_type {config.detector_type!r} is not supported; known are {', '.join(FORMATS)}"
        )
    return FORMATS[config.detector_type]


def layout_of(config: DetectorKeys) -> Layout:
    """Work out a config's layout with all checks; ValueError says what does not fit."""
    form = _known_format(config)
    if config.bit_depth not in form.bit_depths:
        depths = ", ".join(map(str, form.bit_depths))
        raise ValueError(f"bit_depth {config.bit_depth} is not one of a {form.name}'s: {depths}")
    layout = form.layout(config)
    last = max(layout.udp_ports, default=0)
    if layout.udp_ports and (config.start_udp_port < 1 or last > 65535):
        raise ValueError(
            f"start_udp_port {config.start_udp_port}: "
            f"the ports {config.start_udp_port}..{last} are not all in 1..65535"
        )
    if layout.image_bytes > MAX_CHUNK_BYTES:
        raise ValueError(f"an image of {layout.image_bytes} bytes is larger than HDF5 allows for one chunk")
    return layout
