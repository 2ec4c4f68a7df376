"""What a person should know of datagrams that are not the config's: which port, what came, and why perhaps.

The receiver keeps per UDP port what it saw since the last run began (``Ring.sockets``). One
sentence for each kind, of the first port that has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from daq_core.config import DaqConfig
from daq_core.detectors import Layout, format_of, gigafrost, sls
from daq_core.ring.ring import Ring
from daq_core.ring.words import SocketState, Word

SLS_DETECTORS = {
    1: "Eiger",
    2: "Gotthard",
    3: "Jungfrau",
    4: "ChipTestBoard",
    5: "Moench",
    6: "Mythen3",
    7: "Gotthard2",
    8: "XilinxChipTestBoard",
}
"""Source: slsDetectorPackage, ``slsSupportLib/include/sls/sls_detector_defs.h``, enum detectorType."""


def sentences(config: DaqConfig, layout: Layout, ring: Ring) -> Iterator[str]:
    """Yield what there is to say of datagrams that the config does not explain."""
    kinds = (
        (SocketState.ODD_NUMBERS, SocketState.ODD_NUMBER, _of_number),
        (SocketState.ODD_HEADERS, SocketState.ODD_HEADER, _of_header),
    )
    for count, value, describe in kinds:
        ports: list[int] = ring.sockets[:, count].nonzero()[0].tolist()
        if ports:
            here: Any = layout.ports[ports[0]]
            more = len(ports) - 1
            others = f"; {more} more port{'s' if more > 1 else ''} alike" if more else ""
            what = describe(config, here, int(ring.sockets[ports[0], value]))
            yield f"UDP port {here.udp_port}, module {here.module}: {what}{others}"
    if n := int(ring.words[Word.RUN_FORGOTTEN]):
        yield (
            f"{n} packets that the config's frames do not have came before any other of their image, too "
            "many to be kept in mind: some of the run's images may be called good that are not"
        )


def _of_number(config: DaqConfig, here: Any, number: int) -> str:
    first, n = int(here.first_packet), int(here.n_units)
    if config.detector_type == "gigafrost":
        return (
            f"row {number}, a link's frame has {n} in an image of {config.image_pixel_height} rows: "
            "is the camera's image higher?"
        )
    if format_of(config).name == "eiger":
        deeper = (d for d in format_of(config).bit_depths if number < n * d // config.bit_depth)
        depth = min(deeper, default=None)
        guess = f"is the detector at {depth} bit?" if depth else "is another detector sending there?"
        return f"packet {number}, a {config.bit_depth}-bit frame has {n}: {guess} {_STATUS}"
    whose = f"of {n} packets from {first} to {first + n - 1}" if first else f"of {n} packets"
    return f"packet {number}, a frame is {whose} here: does the detector read more rows? {_STATUS}"


_STATUS = "Such images get status 3"


def _of_header(config: DaqConfig, here: Any, header: int) -> str:
    if config.detector_type == "gigafrost":
        return _of_gigafrost_header(config, header)
    kind, version = header & 0xFF, header >> 8
    ours = int(here.header_value) >> 48 & 0xFF
    if kind in (0, ours):
        return f"header version {version}, only {sls.HEADER_VERSION} is known: is the firmware another one?"
    name = SLS_DETECTORS.get(kind, "unknown")
    return (
        f"detector type {kind} ({name}) in the header, of {config.detector_type} it is {ours}: "
        "is detector_type right?"
    )


def _of_gigafrost_header(config: DaqConfig, header: int) -> str:
    protocol, columns = header & 0xFF, (header >> 8 & 0xFF) * 24
    if protocol != gigafrost.PROTOCOL_ID:
        return f"protocol 0x{protocol:02X}, a GigaFRoST's is 0x{gigafrost.PROTOCOL_ID:02X}: another sender?"
    if columns != config.image_pixel_width:
        return f"an image {columns} pixels wide, image_pixel_width is {config.image_pixel_width}"
    rows = 2 * (header >> 16 & 0xFE | (header >> 24 & 3) << 8)
    return f"an image {rows} pixels high, image_pixel_height is {config.image_pixel_height}"
