"""The keys of a config that say what the detector sends: all that a layout is worked out from.

``daq_core.config`` adds what the DAQ does with it. Keys that only this project knows are marked "ours".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

STREAM_ADDRESS = re.compile(r"tcp://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def _integer(value: object) -> int:
    """Accept 8, 8.0 and "8" (the original's web page sends text); refuse true, 8.5, null."""
    if isinstance(value, bool) or value is None:
        raise ValueError("non-int value")
    if isinstance(value, str):
        try:
            return int(value.strip(), 10)
        except ValueError:
            raise ValueError("non-int value") from None
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("non-int value")
        return int(value)
    if not isinstance(value, int):
        raise ValueError("non-int value")
    return value


def _positions(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError('must be an object like {"0": [x_start, y_start, x_end, y_end]}')
    if len({str(key).strip().lstrip("+0") for key in value}) < len(value):  # "1" and "01"
        raise ValueError("names a module twice")
    return value


def _stream_address(value: str) -> str:
    if STREAM_ADDRESS.fullmatch(value) is None or not 1 <= int(value.rpartition(":")[2]) <= 65535:
        raise ValueError("must be like tcp://host:port, with a port in 1..65535")
    return value


def _input_path(value: str) -> str:
    if value and (not value.startswith("/") or not value.isprintable()):
        raise ValueError("must be an absolute path of printable characters")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
StreamAddress = Annotated[str, AfterValidator(_stream_address)]
InputPath = Annotated[str, AfterValidator(_input_path)]
Position = tuple[Integer, Integer, Integer, Integer]


class DetectorKeys(BaseModel):
    """One detector: its geometry, and where its packets or messages come from."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False, protected_namespaces=())

    detector_name: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of the detector: a group of that name in each file holds links to the data."""
    detector_type: str
    """What sends the images, and how: a type of the detectors below."""
    bit_depth: Annotated[Integer, Field(ge=1, le=64)]
    """Bits of a pixel on the wire, as the detectors below have them; 16 for a GigaFRoST, which packs 12."""
    image_pixel_height: Annotated[Integer, Field(ge=1, le=65535)]
    """Rows of the assembled image, gap pixels included."""
    image_pixel_width: Annotated[Integer, Field(ge=1, le=65535)]
    """Columns of the assembled image, gap pixels included."""
    n_modules: Annotated[Integer, Field(ge=1, le=256)]
    """Modules (senders) of the detector; fewer ``module_positions`` leave the others out.
    GigaFRoST 8, bsread 1."""
    start_udp_port: Annotated[Integer, Field(ge=0, le=65535)]
    """Module m is received on UDP port start_udp_port + m, a GigaFRoST's link likewise; see n_udp_interfaces
    and n_udp_ports. bsread has none: any number, as 0."""
    module_positions: Annotated[dict[Integer, Position], BeforeValidator(_positions)]
    """Module number → pixel of its first and last corner, inclusive: [x_start, y_start, x_end, y_end].
    An end before its start means the module is mounted flipped along that axis. Empty
    for GigaFRoST and bsread."""

    gain_file: InputPath = ""
    """Ours. Jungfrau: HDF5 file with /gains [3, n_modules, 512, 1024]; images then become float32."""
    pedestal_file: InputPath = ""
    """Ours. Jungfrau: HDF5 file with /pedestals of the same shape, subtracted before the gain is applied."""
    n_udp_ports: Annotated[Literal[8, 16], BeforeValidator(_integer)] = 8
    """Ours. GigaFRoST: 8, or 16 with even images on the first eight ports and odd ones on the others."""
    n_udp_interfaces: Annotated[Literal[1, 2], BeforeValidator(_integer)] = 1
    """Ours. Jungfrau. With 2, module m's top half comes on start_udp_port + 2m, the other on the next."""
    stream_addresses: Annotated[list[StreamAddress], Field(max_length=64)] = []
    """Ours. bsread: the senders to connect to, each `tcp://host:port`; images may come from any of them."""
