"""What kernels are given: named tuples of what belongs together, and the signatures of a detector's kernels.

A tuple costs nothing: compiled, its fields are parameters like any others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
from numba import types

from daq_core.detectors.format import LAYOUT
from daq_core.ring.ring import SLOT, Ring


class Batch(NamedTuple):
    """Datagrams as recvmmsg leaves them, and what was found of each.

    datagrams : (batch * stride,) uint8   header first
    stride    : int                       distance of two datagrams, a multiple of 8
    messages  : (batch, 16) uint32        struct mmsghdr of each
    taken     : (batch, 2) int64          slot of each, below 0 for none, and how many units are new in it
    """

    datagrams: Any
    stride: int
    messages: Any
    taken: Any


class Port(NamedTuple):
    """A UDP port: where its pixels go.

    layout : (ports,) LAYOUT  of all ports
    number : int              its row
    """

    layout: Any
    number: int


class Clock(NamedTuple):
    """Now, in ns: monotonic, and real time."""

    now: int
    real: int


class Assembly(NamedTuple):
    """Images that are being assembled.

    ring  : Ring                  shared with writers and control
    local : (Local.COUNT,) int64  what the receive threads know (``daq_core.assembling.local``)
    """

    ring: Any
    local: Any


class Packet(NamedTuple):
    """What a packet says of itself, or a message that is a whole image.

    port    : int     row of the layout
    frame   : uint64  what packets are matched by
    image_id: uint64  what the file shows
    unit    : int     the first of its bits in the image's bitmap
    n_units : int     and how many it has
    """

    port: int
    frame: Any
    image_id: Any
    unit: int
    n_units: int


_int64 = types.int64[::1]
RING_TYPE = types.NamedTuple(
    (
        _int64,
        _int64,
        numba.from_dtype(SLOT)[::1],
        types.uint64[:, ::1],
        _int64,
        types.uint8[:, ::1],
        types.int64[:, ::1],
        types.int64[:, ::1],
    ),
    Ring,
)
LAYOUT_TYPE = numba.from_dtype(LAYOUT)[::1]
BATCH_TYPE = types.NamedTuple(
    (types.uint8[::1], types.int64, types.uint32[:, ::1], types.int64[:, ::1]), Batch
)
PORT_TYPE = types.NamedTuple((LAYOUT_TYPE, types.int64), Port)
CLOCK_TYPE = types.NamedUniTuple(types.int64, 2, Clock)
ASSEMBLY_TYPE = types.NamedTuple((RING_TYPE, _int64), Assembly)

# take(batch, first, n, port, clock, assembly) -> next datagram
TAKE = types.int64(BATCH_TYPE, types.int64, types.int64, PORT_TYPE, CLOCK_TYPE, ASSEMBLY_TYPE)
# put(batch, first, n, port, ring): copy the pixels of what was taken
PUT = types.void(BATCH_TYPE, types.int64, types.int64, PORT_TYPE, RING_TYPE)
# erase(layout, port, unit, pixels): zero the pixels of a unit that did not arrive
ERASE = types.void(LAYOUT_TYPE, types.int64, types.int64, types.uint8[::1])
