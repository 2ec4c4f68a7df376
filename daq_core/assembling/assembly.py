"""Compiled bookkeeping of the images that are being assembled in the ring.

Theory of operation. Only one receive thread at a time opens, marks and publishes
images (see ``daq_core.assembling.gate``), so nothing here needs a lock. An image is *opened* by its
first packet, gets the next sequence number and with it a slot; it is *published*
in that order, when it is complete, when ``image_timeout_s`` have passed since its
newest packet, or when it leaves the window of open images. Which image a packet
belongs to, and whether it is late, is for ``daq_core.assembling.claims`` to find.

A run takes the images opened after the receiver took up its epoch, until its
sockets are read when it is to end (``daq_core.assembling.draining``). An image that was open
at that moment goes on collecting its packets, so that they do not open a second,
broken one; but as soon as one of them comes twice, after a pause, the detector
has been armed again with the same numbers, and the packet opens a new image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from daq_core.detectors.format import LAYOUT
from daq_core.kernels.compiling import fetch_add, finish_stores, kernel, load_acquire, store_release
from daq_core.ring.ring import (
    GOOD,
    NO_END,
    OPEN,
    SLOT,
    WRITER_WORDS,
    Ring,
    Word,
)

LATE, DUPLICATE, NO_SLOT, NO_ROOM = -1, -2, -3, -4  # what ``claims.claim`` answers instead of a slot

REMEMBERED_DROPS = 64
REMEMBERED_PROOFS = 64
REMEMBERED = 4096  # images that were opened; a power of two


class _Local(NamedTuple):
    """Index of each word of the receive loop's own memory, (Local.COUNT,) int64."""

    WINDOW: int = 0  # most images open at once
    TIMEOUT_NS: int = 1
    UNITS: int = 2  # of a complete image
    DROP_INCOMPLETE: int = 3  # 1: incomplete images are not written
    ID_SOURCE: int = 4  # 0 frame number, 1 bunch id as double, 2 bunch id as integer
    FLOOR: int = 5  # oldest sequence number whose slot must not be reused
    ARMS: int = 6  # the newest arm that a port has entered, be it in doubt
    CONFIRMED: int = 7  # the newest of which no port that has entered it is in doubt
    N_DROPS: int = 8  # images refused since a port was armed again
    CLAIMED: int = 9  # units that the last claim marked
    N_EARLY: int = 10  # frames proven to have another format whose image is not known yet (``verdicts``)
    JUDGED_FROM: int = 11  # monotonic time of the newest packet in a kept image of the run
    WANTS_ROOM: int = 15  # 1: an image waits until the oldest has left the window
    DROPS: int = 16  # the frame numbers of the refused, the last of them, to count each once
    EARLY: int = 16 + REMEMBERED_DROPS  # those frames: number, and sequence number of the next image then
    KNOWN: int = 16 + REMEMBERED_DROPS + 2 * REMEMBERED_PROOFS  # number and arm of each image that was opened
    COUNT: int = 16 + REMEMBERED_DROPS + 2 * REMEMBERED_PROOFS + 2 * REMEMBERED


Local = _Local()

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

# take(datagrams, stride, messages, first, n, layout, port, now, real, ring, local, taken) -> next datagram
TAKE = types.int64(
    types.uint8[::1],
    types.int64,
    types.uint32[:, ::1],
    types.int64,
    types.int64,
    LAYOUT_TYPE,
    types.int64,
    types.int64,
    types.int64,
    RING_TYPE,
    _int64,
    types.int64[:, ::1],
)
# put(datagrams, stride, messages, first, n, layout, port, ring, taken): copy the pixels of what was taken
PUT = types.void(
    types.uint8[::1],
    types.int64,
    types.uint32[:, ::1],
    types.int64,
    types.int64,
    LAYOUT_TYPE,
    types.int64,
    RING_TYPE,
    types.int64[:, ::1],
)
# erase(layout, port, unit, pixels): zero the pixels of a unit that did not arrive
ERASE = types.void(LAYOUT_TYPE, types.int64, types.int64, types.uint8[::1])


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
def open_image(ring: Any, local: Any, arm: int, frame: Any, image_id: Any, now: int, real: int) -> int:
    """Return the slot of a new image.

    Otherwise NO_SLOT: the ring is full, the image is refused; NO_ROOM: the window is full, the
    oldest open image has to go first.
    """
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
    image.frame = frame
    image.arm = arm
    image.image_id = image_id
    image.sequence = sequence
    image.first_ns = real
    image.newest_ns = now
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
def floor(ring: Any, local: Any) -> int:
    """Return the oldest sequence number whose slot is still needed, by the writer or by assembly."""
    epoch = ring.words[Word.ACKNOWLEDGED]
    if epoch == 0 or load_acquire(ring.words, Word.WRITER_DONE) >= epoch - (epoch + 1) % 2:
        oldest = ring.words[Word.PUBLISHED]
    else:
        oldest = load_acquire(ring.words, Word.CONSUMED)
        for writer in range(1, ring.words[Word.N_WRITERS]):  # the slowest of them
            oldest = min(oldest, load_acquire(ring.words, Word.CONSUMED + writer * WRITER_WORDS))
        oldest = max(ring.words[Word.RUN_FIRST], oldest)
        oldest = min(oldest, ring.words[Word.PUBLISHED])
    local[Local.FLOOR] = oldest
    return oldest


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
    if is_taking(ring) and (ring.words[Word.BY_VALVE] == 0 or is_open(ring)):
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


@kernel
def is_taking(ring: Any) -> bool:
    """Tell whether a run is armed and still wants images."""
    return ring.words[Word.ACKNOWLEDGED] % 2 == 1 and ring.words[Word.RUN_END] == NO_END


@kernel
def is_open(ring: Any) -> bool:
    """Tell whether the valve (``daq_core.control.valve``) lets through the images that come now."""
    words = ring.words
    n_images = words[Word.VALVE_IMAGES]
    return words[Word.VALVE_END] == NO_END and (n_images == 0 or words[Word.PASSED] < n_images)
