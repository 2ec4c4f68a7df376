"""Compiled bookkeeping of the images that are being assembled in the ring.

Theory of operation. Only one receive thread at a time opens, marks and publishes
images (see ``daq_core.assembling.gate``), so nothing here needs a lock. An image is *opened* by its
first packet, gets the next sequence number and with it a slot; it is *published*
in that order, when it is complete, when ``image_timeout_s`` have passed since its
newest packet, or when it leaves the window of open images. Which image a packet
belongs to, and whether it is late, is for ``daq_core.assembling.claims`` to find.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.local import REMEMBERED_DROPS, Local
from daq_core.assembling.runs import floor, is_taking, lets_through
from daq_core.kernels.compiling import fetch_add, finish_stores, kernel, load_acquire, store_release
from daq_core.ring.ring import GOOD, OPEN
from daq_core.ring.words import Word

LATE, DUPLICATE, NO_SLOT, NO_ROOM = -1, -2, -3, -4  # what ``claims.claim`` answers instead of a slot


@kernel
def settle(ring: Any, taken: Any, first: int, n: int) -> None:
    """Say that the pixels of taken datagrams are in place: (batch, 2) slot or below 0, and units."""
    finish_stores()
    i = first
    while i < n:
        slot, n_units = taken[i, 0], np.int64(0)
        while i < n and taken[i, 0] == slot:
            n_units += taken[i, 1]
            i += 1
        if slot >= 0:
            fetch_add(ring.placed, slot, n_units)


@kernel
def is_settled(ring: Any, slot: int) -> bool:
    """Tell whether all pixels of the packets that are marked in an image are in place."""
    return load_acquire(ring.placed, slot) == ring.slots[slot].n_received


@kernel
def last_open(ring: Any, arm: int, frame: Any) -> int:
    """Return the slot of an arm's image of that number, open or published; -1 when none has it."""
    n_slots = ring.slots.shape[0]
    opened = ring.words[Word.OPENED]
    for sequence in range(opened - 1, max(np.int64(0), opened - n_slots) - 1, -1):
        image = ring.slots[sequence % n_slots]
        if image.frame == frame and image.arm == arm and image.sequence == sequence:
            return sequence % n_slots
    return -1


@kernel
def open_image(assembly: Any, packet: Any, clock: Any, arm: int) -> int:
    """Return the slot of a new image, whose first packet this is.

    Otherwise NO_SLOT: the ring is full, the image is refused; NO_ROOM: the window is full, the
    oldest open image has to go first.
    """
    ring, local = assembly.ring, assembly.local
    n_slots = ring.slots.shape[0]
    sequence = ring.words[Word.OPENED]
    # A full ring drops the newest image; making room in the window would hurt the oldest for nothing.
    if sequence - floor(ring, local) >= n_slots:
        return NO_SLOT
    if sequence - ring.words[Word.PUBLISHED] >= local[Local.WINDOW]:
        local[Local.WANTS_ROOM] = 1
        return NO_ROOM
    slot = sequence % n_slots
    image = ring.slots[slot]
    image.frame = packet.frame
    image.arm = arm
    image.image_id = packet.image_id
    image.sequence = sequence
    image.first_ns = clock.real
    image.newest_ns = clock.now
    image.n_received = 0
    image.n_missing = 0
    image.unwanted = 0
    image.status = GOOD
    image.state = OPEN
    ring.placed[slot] = 0
    for word in range(ring.marks.shape[1]):
        ring.marks[slot, word] = np.uint64(0)
    store_release(ring.words, Word.OPENED, sequence + 1)
    return slot


@kernel
def has_room(ring: Any, local: Any) -> bool:
    """Tell whether an image could be opened, and no other had to go for it."""
    sequence = ring.words[Word.OPENED]
    is_slot_free = sequence - floor(ring, local) < ring.slots.shape[0]
    return is_slot_free and sequence - ring.words[Word.PUBLISHED] < local[Local.WINDOW]


@kernel
def is_marked(ring: Any, slot: int, unit: int) -> bool:
    """Tell whether a unit of an image has arrived."""
    return (ring.marks[slot, unit >> 6] >> np.uint64(unit & 63)) & np.uint64(1) == np.uint64(1)


@kernel
def refuse(ring: Any, local: Any, frame: Any) -> None:
    """Count an image that found no free slot: once, however many packets it has."""
    ring.words[Word.UNPLACED] += 1
    if was_refused(local, frame):
        return
    local[Local.DROPS + local[Local.N_DROPS] % REMEMBERED_DROPS] = np.int64(frame)
    local[Local.N_DROPS] += 1
    if is_taking(ring) and (ring.words[Word.BY_VALVE] == 0 or lets_through(ring)):
        ring.words[Word.RUN_DROPPED] += 1
        ring.words[Word.DROPPED_IMAGES] += 1
    else:
        ring.words[Word.UNWANTED] += 1


@kernel
def was_refused(local: Any, frame: Any) -> bool:
    """Tell whether an image of that number found no free slot; forgotten when a port is armed again."""
    for i in range(min(local[Local.N_DROPS], REMEMBERED_DROPS)):
        if local[Local.DROPS + i] == np.int64(frame):
            return True
    return False
