"""What a detector format is: its layout, its placement kernels, and their inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from daq_core.config import DaqConfig


@dataclass(frozen=True)
class Layout:
    """How one config's packets become images.

    image_shape : (rows, columns) of the assembled image
    dtype       : of a pixel in the file
    ports       : (ports,) LAYOUT, one row for each UDP port
    modules     : module numbers, in the order of Ring.module_packets
    """

    image_shape: tuple[int, int]
    dtype: np.dtype[Any]
    ports: npt.NDArray[Any]
    modules: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ports", self.ports.view(np.recarray))

    @property
    def image_bytes(self) -> int:
        return self.image_shape[0] * self.image_shape[1] * self.dtype.itemsize

    @property
    def n_units(self) -> int:
        """Units (packets) of one complete image."""
        return int(self.ports["n_units"].sum())

    @property
    def udp_ports(self) -> list[int]:
        return [int(port) for port in self.ports["udp_port"]]

    @property
    def datagram_bytes(self) -> int:
        return int(self.ports["datagram_bytes"].max())


@dataclass(frozen=True)
class DetectorFormat:
    """One kind of detector; an entry of ``FORMATS``.

    layout : works out a config's Layout, ValueError says what does not fit
    place  : kernel of signature ``assembly.PLACE``
    erase  : kernel of signature ``assembly.ERASE``
    pack   : (image, layout, frame) -> datagrams of each port, for simulator and tests
    stamp  : (datagrams of one port, frame), makes packed datagrams those of another frame
    header : first bytes of a datagram; its field ``frame_number`` says which frame it is of
    """

    name: str
    bit_depths: tuple[int, ...]
    layout: Callable[[DaqConfig], Layout]
    place: Callable[..., int]
    erase: Callable[..., None]
    pack: Callable[[npt.NDArray[Any], Layout, int], list[npt.NDArray[np.uint8]]]
    stamp: Callable[[npt.NDArray[np.uint8], int], None]
    header: np.dtype[Any]
