"""bsread and array-1.0: whole images as ZeroMQ messages, of which ``stream_addresses`` names the senders.

The parts of a message::

    bsread     main header, data header, then data and timestamp of each channel
    array-1.0  header, data

Headers are JSON. Of bsread only the first channel is taken; its timestamp may be
empty, and so may the data header, when the main header's ``hash`` is that of the
message before. ``shape`` is [columns, rows] in bsread and [rows, columns] in
array-1.0. In both, ``encoding`` (``little`` where absent, or ``big``) is the byte
order of the pixels and ``compression`` one of :data:`COMPRESSIONS`; the size before
``lz4`` data is sent little-endian, and read in whichever order it is right. The
pixels' ``type`` has to be the unsigned one of the config's bit depth: images of
another type or shape are refused, not converted.

Source: bsread's Python and C++ packages (headers, compression, order of shape);
std_detector_buffer (which parts it reads; array-1.0, where ``frame`` is the id).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daq_core.codecs.bitshuffle import (
    compress_bitshuffle_lz4,
    compress_lz4,
    decompress_bitshuffle_lz4,
    decompress_lz4,
    lz4_sizes,
)
from daq_core.detectors import Layout

MAX_HEADER_BYTES = 2**20
MAX_ID = 2**64 - 1
MAX_SHOWN = 80

MessageCompression = Literal["none", "bitshuffle_lz4", "lz4"]
COMPRESSIONS = ("none", "bitshuffle_lz4", "lz4")
Part = bytes | memoryview


class BadMessage(ValueError):
    """A message that holds no image of this config; the text says why."""


@dataclass(frozen=True)
class MessageForm:
    """How an image is sent: the format of its message, and what its header says of the pixels."""

    format: Literal["bsread", "array-1.0"] = "bsread"
    compression: MessageCompression = "none"
    encoding: Literal["little", "big"] = "little"


@dataclass(frozen=True)
class ImageMessage:
    """One image as it came, its pixels still on the wire."""

    image_id: int
    data: Part
    compression: str
    is_big_endian: bool

    def put(self, pixels: npt.NDArray[Any]) -> None:
        """Fill (H, W) or (pixels,), contiguous; BadMessage when the data are damaged: undefined then."""
        memory = pixels.reshape(-1).view(np.uint8)
        data = np.frombuffer(self.data, np.uint8)
        try:
            if self.compression == "bitshuffle_lz4":
                decompress_bitshuffle_lz4(data, memory, pixels.itemsize)
            elif self.compression == "lz4":
                decompress_lz4(data, memory)
            elif len(data) == len(memory):
                memory[:] = data
            else:
                raise ValueError(f"{len(data)} bytes of data, an image has {len(memory)}")
        except ValueError as error:
            raise BadMessage(str(error)) from None
        if self.is_big_endian:
            pixels.byteswap(inplace=True)


class MessageReader:
    """Reads the messages of one sender: its data header may be left out when it has not changed."""

    def __init__(self, layout: Layout) -> None:
        self._shape = layout.image_shape
        self._type = layout.dtype.name
        self._hash: object = None
        self._data_header: bytes = b""
        self._channel: dict[str, Any] = {}

    def read(self, parts: Sequence[Part]) -> ImageMessage:
        """Return the image of a message; BadMessage says why it has none."""
        header = _json(parts[0], "header") if parts else {}
        kind = header.get("htype", "array-1.0")
        if isinstance(kind, str) and kind.startswith("bsr_m-1."):
            return self._read_bsread(header, parts)
        if kind == "array-1.0":
            if len(parts) < 2:
                raise BadMessage("array-1.0 without data: it has 1 part, not 2")
            return self._image("frame", header, header, [*self._shape], parts[1])
        raise BadMessage(f"htype {_shown(kind)} is neither bsr_m-1.1 nor array-1.0")

    def _read_bsread(self, header: dict[str, Any], parts: Sequence[Part]) -> ImageMessage:
        if len(parts) < 3:
            raise BadMessage(f"bsread message of {len(parts)} parts: it has no channel")
        self._take_data_header(header, bytes(parts[1]))
        return self._image("pulse_id", header, self._channel, [*reversed(self._shape)], parts[2])

    def _take_data_header(self, header: dict[str, Any], raw: bytes) -> None:
        """Keep the first channel of a data header; most are the same bytes as the one before."""
        if raw == self._data_header and raw:
            self._hash = header.get("hash")
            return
        if not raw:
            if not self._data_header or header.get("hash") != self._hash:
                raise BadMessage("empty data header, and none with this hash came before")
            return
        compression = header.get("dh_compression", "none")
        channels = _json(_decompressed(raw, compression), "data header").get("channels")
        if not isinstance(channels, list) or not channels or not isinstance(channels[0], dict):
            raise BadMessage("data header without channels")
        self._hash, self._data_header, self._channel = header.get("hash"), raw, channels[0]

    def _image(
        self, id_key: str, header: dict[str, Any], channel: dict[str, Any], shape: list[int], data: Part
    ) -> ImageMessage:
        image_id = header.get(id_key)
        if type(image_id) is not int or not 0 <= image_id <= MAX_ID:  # a bool is an int too
            raise BadMessage(f"{id_key} {_shown(image_id)} is no unsigned 64-bit integer")
        if channel.get("shape") != shape:
            raise BadMessage(f"shape {_shown(channel.get('shape'))} where the config has {shape}")
        if str(channel.get("type")).lower() != self._type:
            raise BadMessage(f"type {_shown(channel.get('type'))} where the config has {self._type}")
        encoding, compression = channel.get("encoding", "little"), channel.get("compression") or "none"
        if encoding not in ("little", "big"):
            raise BadMessage(f"encoding {_shown(encoding)} is neither little nor big")
        if compression not in COMPRESSIONS:
            raise BadMessage(f"compression {_shown(compression)} is none of {', '.join(COMPRESSIONS)}")
        return ImageMessage(image_id, data, compression, encoding == "big")


def _json(part: Part, what: str) -> dict[str, Any]:
    if len(part) > MAX_HEADER_BYTES:
        raise BadMessage(f"{what} of {len(part)} bytes, more than {MAX_HEADER_BYTES}")
    try:
        value = json.loads(bytes(part))
    except (ValueError, RecursionError):
        raise BadMessage(f"{what} that is not JSON") from None
    if not isinstance(value, dict):
        raise BadMessage(f"{what} that is no JSON object")
    return value


def _decompressed(raw: bytes, compression: object) -> bytes:
    """Return a data header; compressed ones start with their length, as data do."""
    if compression in (None, "", "none"):
        return raw
    if compression not in COMPRESSIONS:
        raise BadMessage(f"dh_compression {_shown(compression)} is none of {', '.join(COMPRESSIONS)}")
    sizes = _header_sizes(raw, str(compression))
    refused = BadMessage(f"data header of {sizes[0]} bytes, more than {MAX_HEADER_BYTES}")
    for n_bytes in sizes:
        if n_bytes <= MAX_HEADER_BYTES:
            text = np.zeros(n_bytes, np.uint8)
            try:
                ImageMessage(0, raw, str(compression), False).put(text)
            except BadMessage as error:
                refused = error
            else:
                return text.tobytes()
    raise refused


def _header_sizes(raw: bytes, compression: str) -> Sequence[int]:
    """Return what the length of a compressed data header may be; of LZ4 it comes in two byte orders.

    Nothing else says how long a header is, but only with the right length does it decompress.
    """
    if compression != "lz4":
        return [int.from_bytes(raw[:8], "big")]
    try:
        return sorted(lz4_sizes(np.frombuffer(raw, np.uint8)))
    except ValueError as error:
        raise BadMessage(str(error)) from None


def _shown(value: object) -> str:
    text = ascii(value)  # what a stranger sent goes into a log line
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def compress(image: npt.NDArray[Any], wire: MessageForm) -> bytes:
    """Return the data part of (H, W) unsigned pixels."""
    ordered = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(wire.encoding)))
    memory = ordered.reshape(-1).view(np.uint8)
    match wire.compression:
        case "bitshuffle_lz4":
            return compress_bitshuffle_lz4(memory, image.itemsize)
        case "lz4":
            return compress_lz4(memory)
    return memory.tobytes()


def pack(data: bytes, layout: Layout, image_id: int, wire: MessageForm, name: str = "image") -> list[bytes]:
    """Return the parts of a message, of what :func:`compress` made; `name` is the bsread channel's."""
    pixels: dict[str, Any] = {"type": layout.dtype.name, "encoding": wire.encoding}
    if wire.compression != "none":
        pixels["compression"] = wire.compression
    if wire.format == "array-1.0":
        header = {"htype": "array-1.0", "shape": [*layout.image_shape], "frame": image_id} | pixels
        return [json.dumps(header).encode(), data]
    shape = [*reversed(layout.image_shape)]
    channels = {"htype": "bsr_d-1.1", "channels": [{"name": name, "shape": shape} | pixels]}
    data_header = json.dumps(channels).encode()
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    header = {
        "htype": "bsr_m-1.1",
        "pulse_id": image_id,
        "global_timestamp": {"sec": seconds, "ns": nanoseconds},
        "hash": hashlib.md5(data_header, usedforsecurity=False).hexdigest(),
        "dh_compression": "none",
    }
    return [json.dumps(header).encode(), data_header, data, b""]
