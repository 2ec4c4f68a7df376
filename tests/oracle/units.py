"""The units of an image, each of which arrives whole or not at all, and which of them a datagram carries.

Nothing of ``daq_core`` is used here. A unit of an Eiger, Jungfrau or Moench is a
packet; of a GigaFRoST it is a row of a link's frame, because its datagrams hold as
many rows as their length tells, and one that was cut short still has its first ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from tests.oracle.frames import GIGAFROST_HEADER, camera_rows
from tests.oracle.packets import HEADER, PAYLOAD_BYTES, packet_numbers, pixel_places

Unit = tuple[int, int]  # module, and packet number or row of the link's frame

GIGAFROST_PROTOCOL = 0xCB
DETECTOR_TYPES = {"eiger": 1, "jungfrau": 3, "moench": 5}
HEADER_VERSION = 2
GIGAFROST_MOST_BYTES = 7400  # behind the header


class Heading(NamedTuple):
    """What the head and the length of a datagram say."""

    frame: int
    module: int
    numbers: range  # of the units in it

    @property
    def first(self) -> Unit:
        """The first unit: a second datagram that begins with it is a duplicate, whatever its length."""
        return self.module, self.numbers.start


class Units(Protocol):
    """The units of one detector."""

    word: str
    """What people call one."""

    def places(self) -> dict[Unit, Any]:
        """Return for each unit of an image the index of its pixels in (H, W), in the order of the wire."""

    def heading(self, port: int, data: bytes) -> Heading | None:
        """Read the head of a datagram that came to a port, counted from 0; None: no receiver may use it."""

    def proves(self, port: int, data: bytes) -> int | None:
        """Return the frame that a datagram without a heading shows to be of another format, if it does."""

    def pixels(self, heading: Heading, data: bytes) -> dict[Unit, bytes]:
        """Return the pixels of each unit in a datagram, as the image has them."""

    def believed_sizes(self, headings: Iterable[Heading]) -> set[int]:
        """Return how many units a receiver of these datagrams may take a full one to have."""


def units_of(config: Mapping[str, Any]) -> Units:
    """Return the units of a config's detector."""
    return _Rows(config) if config["detector_type"] == "gigafrost" else _Packets(config)


def packets_lacking(units: Iterable[Unit], size: int) -> int:
    """Return how many packets are lacking where these units do, `size` of them in a full one."""
    return sum(-(-n // size) for n in Counter(module for module, _ in units).values())


class _Packets:
    """Of the detectors with packet numbers."""

    word = "packet"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._detector, self._depth = str(config["detector_type"]), int(config["bit_depth"])
        self._corners = {int(module): corners for module, corners in config["module_positions"].items()}
        self._modules = sorted(self._corners)
        self._numbers = {m: packet_numbers(self._detector, self._depth, c) for m, c in self._corners.items()}

    def places(self) -> dict[Unit, Any]:
        return {
            (module, number): pixel_places(self._detector, self._depth, self._corners[module], number)
            for module in self._modules
            for number in self._numbers[module]
        }

    def heading(self, port: int, data: bytes) -> Heading | None:
        if not self._is_ours(data):
            return None
        module = self._modules[port]
        frame, _, number, *_ = HEADER.unpack_from(data)
        if number not in self._numbers[module]:
            return None
        return Heading(frame, module, range(number, number + 1))

    def proves(self, port: int, data: bytes) -> int | None:
        if not self._is_ours(data):
            return None
        frame, _, number, *_ = HEADER.unpack_from(data)
        return None if number in self._numbers[self._modules[port]] else int(frame)

    def _is_ours(self, data: bytes) -> bool:
        if len(data) != HEADER.size + PAYLOAD_BYTES[self._detector]:
            return False
        *_, kind, version = HEADER.unpack_from(data)
        return kind in (0, DETECTOR_TYPES[self._detector]) and version in (0, HEADER_VERSION)

    def pixels(self, heading: Heading, data: bytes) -> dict[Unit, bytes]:
        payload = data[HEADER.size :]
        if self._depth == 4:  # the first of two in the low half of their byte
            pairs = np.frombuffer(payload, np.uint8)
            payload = np.stack([pairs & 15, pairs >> 4], axis=1).tobytes()
        return {heading.first: payload}

    def believed_sizes(self, headings: Iterable[Heading]) -> set[int]:
        return {1}


class _Rows:
    """Of a GigaFRoST: eight links, two a quadrant, which send outwards from the middle of the image."""

    word = "row"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._height, self._width = int(config["image_pixel_height"]), int(config["image_pixel_width"])
        self._columns, self._n_rows = self._width // 2, self._height // 4
        self._row_bytes = self._columns * 3 // 2

    def places(self) -> dict[Unit, Any]:
        found: dict[Unit, Any] = {}
        for module in range(8):
            quadrant, link = divmod(module, 2)
            left = self._columns * (quadrant % 2)
            for row in range(self._n_rows):
                down = 2 * row + link
                y = self._height // 2 + down if quadrant < 2 else self._height // 2 - 1 - down
                found[module, row] = y, slice(left, left + self._columns)
        return found

    def proves(self, port: int, data: bytes) -> int | None:
        if not self._is_ours(data):
            return None
        _, _, _, _, _, frame, _, first, *_ = GIGAFROST_HEADER.unpack_from(data)
        return int(frame) if first >= self._n_rows else None

    def _is_ours(self, data: bytes) -> bool:
        n_bytes = len(data) - GIGAFROST_HEADER.size
        if not self._row_bytes <= n_bytes <= GIGAFROST_MOST_BYTES:
            return False
        protocol, blocks, rows, status, *_ = GIGAFROST_HEADER.unpack_from(data)
        high = rows & 0xFE | (status & 3) << 8
        return (protocol, blocks * 12) == (GIGAFROST_PROTOCOL, self._columns) and high in (
            0,
            2 * self._n_rows,
        )

    def heading(self, port: int, data: bytes) -> Heading | None:
        n_bytes = len(data) - GIGAFROST_HEADER.size
        if not self._is_ours(data):
            return None
        _, _, _, _, _, frame, _, first, *_ = GIGAFROST_HEADER.unpack_from(data)
        if first >= self._n_rows:
            return None
        module = port % 8  # 16 ports: two for each link, for even and odd images
        return Heading(frame, module, range(first, min(first + n_bytes // self._row_bytes, self._n_rows)))

    def pixels(self, heading: Heading, data: bytes) -> dict[Unit, bytes]:
        size, found = self._row_bytes, {}
        for i, row in enumerate(heading.numbers):
            begin = GIGAFROST_HEADER.size + i * size
            three = np.frombuffer(data, np.uint8, size, begin).reshape(-1, 3).astype("<u2")
            first = three[:, 0] | (three[:, 1] & 15) << 8
            second = three[:, 1] >> 4 | three[:, 2] << 4
            found[heading.module, row] = np.stack([first, second], axis=1).tobytes()
        return found

    def believed_sizes(self, headings: Iterable[Heading]) -> set[int]:
        """A link's last datagram has what is left over, so it tells nothing; one cut short does, wrongly."""
        seen = {len(h.numbers) for h in headings if h.numbers.start == 0 or h.numbers.stop < self._n_rows}
        return seen or {min(camera_rows(self._width, self._height), self._n_rows)}
