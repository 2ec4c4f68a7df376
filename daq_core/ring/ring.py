"""The image ring in shared memory: what receiver, writer and control tell each other.

One anonymous file (memfd) holds, page by page, the control words, the ports'
and modules' counters, a record and a packet bitmap for each slot, and the
slots' pixels. Images get a sequence number when their first packet arrives and
live in slot ``sequence % n_slots``; three cursors say all there is to say::

    consumed  <=  published  <=  opened          opened - consumed <= n_slots
    (writer)      (receiver)     (receiver)

What stands where is in ``daq_core.ring.words``. When the ring is full, the newest
image is dropped and counted; nothing already in the ring suffers.

Only numpy here: the writer process maps the ring without loading a compiler.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daq_core.linux.mapping import Mapping
from daq_core.ring.words import Arm, SocketState, Word

# Slot states; SKIPPED is never written to a file, HELD is open, but a port is in doubt about it.
FREE, OPEN, COMPLETE, INCOMPLETE, SKIPPED, HELD = range(6)

# Slots' unwanted: not to be stored, as the detector says; or unless complete, since it was in flight.
UNWANTED, CUT = 1, 2

# Status of an image in the file.
GOOD, MISSING_PACKETS, ID_MISMATCH, OTHER_FORMAT = range(4)

SLOT = np.dtype(
    [
        ("frame", np.uint64),  # the detector's frame number: what packets are matched by
        ("image_id", np.uint64),  # what the file shows: frame number or bunch id
        ("sequence", np.int64),
        ("first_ns", np.int64),  # real time of the first packet
        ("newest_ns", np.int64),  # monotonic time of the newest packet
        ("n_received", np.int64),  # units (packets, or rows where a detector counts rows) that are marked
        ("n_missing", np.int32),  # packets; true once published
        ("arm", np.int32),  # that the ports were in which it is of (``daq_core.assembling.arms``)
        ("state", np.int32),
        ("status", np.int16),
        ("unwanted", np.int16),  # UNWANTED, CUT or 0
    ],
    align=True,
)


class Ring(NamedTuple):
    """Views of one ring, as kernels take them; all memory is shared.

    words          (Word.COUNT + 2 n_slots,) int64, see Word; the last 2 n_slots are the sequence numbers of
                                            images that turned out to have another format after they
                                            were published, in turn. An array of their own would be
                                            seven numbers more in every call of a kernel.
    module_packets (n_modules,) int64       packets of each module, this run
    slots          (n_slots,) SLOT
    marks          (n_slots, n_marks) uint64  one bit for each unit of an image that arrived
    placed         (n_slots,) int64         units whose pixels are in place; less than n_received
                                            while a receive thread still copies
    pixels         (n_slots, image_bytes) uint8
    sockets        (n_ports, SocketState.COUNT) int64, what is known of each UDP port
    """

    words: Any
    module_packets: Any
    slots: Any
    marks: Any
    placed: Any
    pixels: Any
    sockets: Any
    arms: Any


@dataclass(frozen=True)
class RingShape:
    """Sizes of a ring, enough to map it in another process."""

    n_slots: int
    n_modules: int
    n_units: int  # of one image: bits in its bitmap
    room_bytes: int  # of one image, with what is kept behind its pixels
    n_ports: int = 0  # last in memory: 0 is right for all who do not look at the sockets

    @property
    def n_marks(self) -> int:
        return -(-self.n_units // 64)

    @property
    def slot_bytes(self) -> int:
        """Distance of two slots: whole pages, so that a slot can be written to disk directly."""
        return _pages(self.room_bytes)

    @property
    def _n_words(self) -> int:
        return Word.COUNT + 2 * self.n_slots

    def _offsets(self) -> tuple[int, ...]:
        modules = _pages(self._n_words * 8)
        slots = modules + _pages(self.n_modules * 8)
        marks = slots + _pages(self.n_slots * SLOT.itemsize)
        placed = marks + _pages(self.n_slots * self.n_marks * 8)
        pixels = placed + _pages(self.n_slots * 8)
        sockets = pixels + self.n_slots * self.slot_bytes
        arms = sockets + _pages(self.n_ports * SocketState.COUNT * 8)
        end = arms + _pages(max(1, self.n_ports) * Arm.COUNT * 8)
        return modules, slots, marks, placed, pixels, sockets, arms, end

    @property
    def total_bytes(self) -> int:
        return self._offsets()[-1]

    def create(self) -> int:
        """Return the descriptor of a new, zeroed memfd of this size, for this user alone."""
        descriptor = os.memfd_create("std-daq-ring", os.MFD_CLOEXEC)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, self.total_bytes)
        return descriptor

    def attach(self, descriptor: int) -> Ring:
        """Map the ring; the descriptor may be closed afterwards. ``ring.prefault`` fetches its pages."""
        modules, slots, marks, placed, pixels, sockets, arms, _ = self._offsets()
        raw: npt.NDArray[np.uint8] = np.asarray(Mapping(descriptor, self.total_bytes))
        return Ring(
            words=raw[: self._n_words * 8].view(np.int64),
            module_packets=raw[modules : modules + self.n_modules * 8].view(np.int64),
            slots=raw[slots : slots + self.n_slots * SLOT.itemsize].view(SLOT).view(np.recarray),
            marks=raw[marks : marks + self.n_slots * self.n_marks * 8]
            .view(np.uint64)
            .reshape(self.n_slots, self.n_marks),
            placed=raw[placed : placed + self.n_slots * 8].view(np.int64),
            pixels=raw[pixels:sockets].reshape(self.n_slots, self.slot_bytes),
            sockets=raw[sockets : sockets + self.n_ports * SocketState.COUNT * 8]
            .view(np.int64)
            .reshape(self.n_ports, SocketState.COUNT),
            arms=raw[arms : arms + max(1, self.n_ports) * Arm.COUNT * 8]
            .view(np.int64)
            .reshape(max(1, self.n_ports), Arm.COUNT),
        )


def choose_n_slots(
    room_bytes: int, ram_buffer_gb: float, free_bytes: int, *, n_modules: int, n_units: int
) -> int:
    """Return how many images the ring holds.

    ``ram_buffer_gb`` GiB when given, else 1 GiB or a quarter of the free memory,
    whichever is less; at least 8 images, at most a million.
    """
    one = RingShape(1, n_modules, n_units, room_bytes)
    slot_cost = one.slot_bytes + one.n_marks * 8 + 24 + SLOT.itemsize
    wanted = int(ram_buffer_gb * 2**30) if ram_buffer_gb > 0 else min(2**30, free_bytes // 4)
    return max(8, min(1_000_000, wanted // slot_cost))


def _pages(n_bytes: int) -> int:
    return -(-n_bytes // 4096) * 4096
