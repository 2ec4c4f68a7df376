"""What a detector format is: its layout, its wire, and what makes packets of images.

The kernels that make images of packets are in ``daq_core.assembling.placing``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daq_core.detectors.keys import DetectorKeys
from daq_core.ring.ring import RingShape

# One row for each UDP port: where its packets' pixels go. All steps are in pixels of the image.
LAYOUT = np.dtype(
    [
        ("udp_port", np.int64),
        ("module", np.int64),  # number in module_positions
        ("module_index", np.int64),  # place in Ring.module_packets
        ("datagram_bytes", np.int64),
        ("payload_bytes", np.int64),
        ("first_packet", np.int64),  # packet number of the first unit; above 0 in partial readout
        ("first_row", np.int64),  # of the module: above 0 in partial readout, or where a port sends a part
        ("first_unit", np.int64),  # bit of the first unit in the image's bitmap
        ("n_units", np.int64),  # of this port in one image
        ("units_per_packet", np.int64),  # 1, or as many rows as the sender was seen to put into a packet
        ("first_pixel", np.int64),
        ("row_step", np.int64),
        ("column_step", np.int64),
        ("segment_step", np.int64),  # from one chip of a row to the next
        ("rows", np.int64),  # of one packet
        ("segments", np.int64),  # of one row
        ("segment_pixels", np.int64),
        ("item_bytes", np.int64),  # of a pixel in the image
        ("packing", np.int64),  # bits of a pixel on the wire, where they are packed; 0: as in the image
        ("header_mask", np.uint64),  # bits that the header's identifying word must share with
        ("header_value", np.uint64),  # this; which word it is, the detector's `take` knows
        ("edges", np.int64),  # byte of the slot, behind the image, where packets' outermost bytes are kept
    ],
    align=True,
)


def layout_row(**fields: int) -> tuple[int, ...]:
    """Return one LAYOUT row; every field must be given."""
    names = LAYOUT.names or ()
    if set(fields) != set(names):
        raise TypeError(f"layout_row needs {names}, got {tuple(fields)}")
    return tuple(fields[name] for name in names)


@dataclass(frozen=True, eq=False)  # its config can be compared
class Layout:
    """How one config's packets become images.

    image_shape : (rows, columns) of the assembled image
    dtype       : of a pixel in the file
    ports       : (ports,) LAYOUT, one row for each UDP port; none where whole images come as messages
    modules     : module numbers, in the order of Ring.module_packets
    pixel_bits  : significant bits of a pixel
    raw_dtype   : of a pixel in the ring, where the writer converts it; None: as in the file
    edge_bytes  : room behind the image in its slot, for bits of packets that wait for their neighbour
    """

    image_shape: tuple[int, int]
    dtype: np.dtype[Any]
    ports: npt.NDArray[Any]
    modules: tuple[int, ...]
    pixel_bits: int
    edge_bytes: int = 0
    raw_dtype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ports", self.ports.view(np.recarray))

    @property
    def image_bytes(self) -> int:
        """Of an image in the file, uncompressed."""
        return self.image_shape[0] * self.image_shape[1] * self.dtype.itemsize

    @property
    def ring_dtype(self) -> np.dtype[Any]:
        """Of a pixel in the ring."""
        return self.raw_dtype or self.dtype

    @property
    def is_converted(self) -> bool:
        return self.ring_dtype != self.dtype

    @property
    def room_bytes(self) -> int:
        """What an image needs of a slot: its pixels and what is kept behind them."""
        return self.image_shape[0] * self.image_shape[1] * self.ring_dtype.itemsize + self.edge_bytes

    @property
    def n_units(self) -> int:
        """Units (packets, or rows) of one complete image; a message is one."""
        return int((self.ports["first_unit"] + self.ports["n_units"]).max(initial=1))

    def ring_shape(self, n_slots: int) -> RingShape:
        """Return the shape of a ring of so many images."""
        return RingShape(n_slots, len(self.modules), self.n_units, self.room_bytes, n_ports=len(self.ports))

    @property
    def turns(self) -> int:
        """Images until the ports come round again: 2 where even and odd ones have their own."""
        return len(self.ports) // max(1, len(np.unique(self.ports["first_unit"]))) or 1

    @property
    def udp_ports(self) -> list[int]:
        return [int(port) for port in self.ports["udp_port"]]

    @property
    def datagram_bytes(self) -> int:
        return int(self.ports["datagram_bytes"].max())


def whole_datagrams(datagrams: npt.NDArray[np.uint8], here: Any) -> npt.NDArray[np.int64]:
    """Return the length of each of (packets, datagram_bytes) uint8 where all have the same."""
    return np.full(len(datagrams), datagrams.shape[1], np.int64)


Units = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""First unit and number of units of each of some datagrams, (n,) each."""


@dataclass(frozen=True)
class DetectorFormat:
    """One kind of detector; an entry of ``FORMATS``.

    layout : works out a config's Layout, ValueError says what does not fit
    wire   : what its datagrams are like, and so which kernels place them: a key of ``placing.KERNELS``
    pack   : (image, layout, frame) -> datagrams of each port, for simulator and tests
    stamp  : (datagrams of one port, frame), makes packed datagrams those of another frame
    lengths : (datagrams of one port, its LAYOUT row) -> bytes to send of each; they may differ
    units : (headers (n,) of `header`, lengths (n,), LAYOUT row) -> first unit within the port's part of
        the image, and number of units, of each datagram; 0 units: it is no packet of this port
    header : first bytes of a datagram; its field ``frame_number`` says which frame it is of
    packetised : (layout, rows) -> layout of a sender with so many rows in a datagram; None: all have the same
    mark_unwanted : (datagrams of one port, whether their image is not to be stored); None: no such flag
    module : columns and rows of a module in the image; None: all have their fixed places
    datagram_bytes : of a datagram, where all configs have the same; None: they differ
    ports : the UDP ports that it sends to, as the docs say it
    """

    name: str
    bit_depths: tuple[int, ...]
    layout: Callable[[DetectorKeys], Layout]
    wire: Literal["sls", "gigafrost"]
    pack: Callable[[npt.NDArray[Any], Layout, int], list[npt.NDArray[np.uint8]]]
    stamp: Callable[[npt.NDArray[np.uint8], int], None]
    units: Callable[[npt.NDArray[Any], npt.NDArray[np.int64], Any], Units]
    header: np.dtype[Any]
    lengths: Callable[[npt.NDArray[np.uint8], Any], npt.NDArray[np.int64]] = whole_datagrams
    packetised: Callable[[Layout, int], Layout] | None = None
    mark_unwanted: Callable[[npt.NDArray[np.uint8], bool], None] | None = None
    module: tuple[int, int] | None = None
    datagram_bytes: int | None = None
    ports: str = "`start_udp_port` + number of the module"


@dataclass(frozen=True)
class StreamFormat:
    """A detector that sends whole images as messages; an entry of ``FORMATS`` too.

    layout : works out a config's Layout, without ports; ValueError says what does not fit
    """

    name: str
    bit_depths: tuple[int, ...]
    layout: Callable[[DetectorKeys], Layout]
