"""Compiled rule of what a frame number means: which image a packet belongs to, or whether it is late.

Judged per port, by what the port has shown before (``daq_core.assembling.arms``):

* A packet of an image that is open and lacks it belongs there.
* A number above the port's newest is its next image; it is late when others have had
  that image and it is gone. One more than the window ahead needs a second witness.
* A number at or below the newest, of no open image, is late, or the detector was armed
  again: that is a doubt, and who is a witness says ``daq_core.assembling.witnesses``.

A message of a stream is a whole image, and after a pause its own witness.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import (
    NOTHING_IN_FLIGHT,
    RESTART_PAUSE_NS,
    SAME_PAUSE_NS,
    arm_to_join,
    cut,
    enter_arm,
    highest_unit,
    note_behind,
    open_elsewhere,
    open_of,
    open_slot,
    rise,
    was_opened,
    was_passed,
)
from daq_core.assembling.assembly import (
    DUPLICATE,
    LATE,
    NO_ROOM,
    NO_SLOT,
    has_room,
    is_marked,
    refuse,
    was_refused,
)
from daq_core.assembling.doubts import AGAIN, AHEAD, cancel_arm
from daq_core.assembling.local import Local
from daq_core.assembling.witnesses import UNDECIDED, begin_doubt, find_in_doubt
from daq_core.kernels.compiling import inlined_kernel, kernel
from daq_core.ring.ring import GOOD, ID_MISMATCH, OPEN, SKIPPED
from daq_core.ring.words import Arm, Word


@inlined_kernel
def claim(assembly: Any, packet: Any, hint: int, clock: Any) -> int:
    """Find the image of a packet and mark its units as arrived.

    Parameters
    ----------
    assembly, packet, clock : as in ``daq_core.assembling.signatures``
    hint : int  slot of the port's packet before; -1 for none

    Returns
    -------
    int  the slot to put the pixels into, and Local.CLAIMED is the number of units that are new in it;
         or LATE, DUPLICATE or NO_SLOT, which are counted;
         or NO_ROOM: nothing is counted, the caller has to settle what it has taken, and to give up the
         oldest image if Local.WANTS_ROOM says so, before it asks again
    """
    ring = assembly.ring
    slot = hint
    if slot < 0 or ring.slots[slot].frame != packet.frame or ring.slots[slot].state != OPEN:
        slot = _find(assembly, packet, clock)
    if slot >= 0 and is_marked(ring, slot, packet.unit):
        ring.words[Word.DUPLICATE] += 1
        return DUPLICATE
    if slot == LATE:
        ring.words[Word.LATE] += 1
    elif slot == NO_SLOT:
        refuse(ring, assembly.local, packet.frame)
    if slot < 0:
        return slot
    image = ring.slots[slot]
    if image.image_id != packet.image_id and image.status == GOOD:
        image.status = ID_MISMATCH
    image.newest_ns = clock.now
    before = image.n_received
    for i in range(packet.unit, packet.unit + packet.n_units):
        if not is_marked(ring, slot, i):
            ring.marks[slot, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
            image.n_received += 1
    assembly.local[Local.CLAIMED] = image.n_received - before
    return slot


@kernel
def _find(assembly: Any, packet: Any, clock: Any) -> int:
    """Return the slot of a packet's image, opening one if need be; or what :func:`claim` answers else."""
    ring, local = assembly.ring, assembly.local
    arms, port = ring.arms, packet.port
    slot = find_in_doubt(assembly, packet, clock)
    if slot == UNDECIDED:
        slot = open_slot(ring, arms[port, Arm.ARM], packet.frame)
        if slot >= 0 and not is_marked(ring, slot, packet.unit) and arms[port, Arm.IS_HEARD] != 0:
            rise(local, arms, port, packet.frame)
            arms[port, Arm.LATE_FRAMES] = 0
        elif arms[port, Arm.IS_HEARD] == 0:
            slot = _enter(assembly, packet, clock)
        elif arms[port, Arm.IS_FRESH] != 0:
            slot = _find_in_new_run(assembly, packet, clock, slot)
        elif packet.frame > np.uint64(arms[port, Arm.NEWEST]) and slot < 0:
            slot = _find_rising(assembly, packet, clock)
        else:
            slot = _find_again(assembly, packet, clock, slot)
    if slot != NO_ROOM:
        arms[port, Arm.PAUSE_NS] = 0
    return slot


@kernel
def _find_rising(assembly: Any, packet: Any, clock: Any) -> int:
    """Find the image of a number above the port's newest, which is not open in its arm."""
    ring, local = assembly.ring, assembly.local
    arms, port, frame = ring.arms, packet.port, packet.frame
    arm = arms[port, Arm.ARM]
    is_stream = arms[port, Arm.IS_STREAM] != 0
    if was_opened(local, arm, frame) or was_passed(ring, port, arm, frame):
        note_behind(ring, port, frame)
        slot = LATE
    else:
        slot = open_elsewhere(ring, local, port, frame)
        if slot >= 0:
            if ring.slots[slot].arm < arm and not cancel_arm(ring, local, arm):
                return NO_ROOM
            enter_arm(arms, port, ring.slots[slot].arm, frame)
        elif was_refused(local, frame):
            slot = NO_SLOT
        elif frame - np.uint64(arms[port, Arm.NEWEST]) > np.uint64(local[Local.WINDOW]) and not is_stream:
            return begin_doubt(assembly, packet, clock, AHEAD, arm)
        else:
            slot = open_of(assembly, packet, clock, arm)
    if slot != NO_ROOM:
        rise(local, arms, port, frame)
    return slot


@kernel
def _find_again(assembly: Any, packet: Any, clock: Any, slot: int) -> int:
    """Find the image of a number at or below the newest; `slot`: of the open image that has the packet."""
    ring, local = assembly.ring, assembly.local
    arms, port, frame = ring.arms, packet.port, packet.frame
    arm, newest = arms[port, Arm.ARM], np.uint64(arms[port, Arm.NEWEST])
    is_stream = arms[port, Arm.IS_STREAM] != 0
    wanted_pause = RESTART_PAUSE_NS if frame < newest else SAME_PAUSE_NS
    is_after_pause = arms[port, Arm.PAUSE_NS] >= wanted_pause
    is_known = slot >= 0 or was_opened(local, arm, frame) or was_passed(ring, port, arm, frame)
    target = arm_to_join(ring, local, port)
    if not is_after_pause:
        is_full = open_slot(ring, target, frame) < 0 and not has_room(ring, local)
        if slot < 0 and was_refused(local, frame):
            return NO_SLOT
        if not is_known and (frame == newest or is_full):
            return open_of(assembly, packet, clock, arm)
        if frame >= newest or is_full:
            return slot if slot >= 0 else LATE
    if is_stream and not is_known:
        return open_of(assembly, packet, clock, arm)
    if slot >= 0 and _is_last_so_far(ring, packet, slot):
        return slot
    return begin_doubt(assembly, packet, clock, AGAIN, target)


@kernel
def _is_last_so_far(ring: Any, packet: Any, slot: int) -> bool:
    """Tell whether a packet is a copy of the last that an image has, and more may come.

    Who stood still within a frame goes on with that; who begins anew does so with a frame's first.
    """
    first = ring.arms[packet.port, Arm.FIRST_UNIT]
    end = first + ring.arms[packet.port, Arm.N_UNITS]
    behind = packet.unit + packet.n_units
    return bool(first < packet.unit and behind == highest_unit(ring, slot, packet.port) + 1 < end)


@kernel
def _find_in_new_run(assembly: Any, packet: Any, clock: Any, slot: int) -> int:
    """Find the image of a port's first packets in a run; `slot`: of the open image that has it already.

    What came before the run is forgotten, but for the frame that was in flight, and for numbers
    that a port falls back to without a pause: they are late.
    """
    ring, local = assembly.ring, assembly.local
    arms, port, frame = ring.arms, packet.port, packet.frame
    newest = np.uint64(arms[port, Arm.NEWEST])
    is_after_pause = arms[port, Arm.PAUSE_NS] >= RESTART_PAUSE_NS or arms[port, Arm.IS_STREAM] != 0
    if slot >= 0:
        if not is_after_pause:
            return slot
        ring.slots[slot].state = SKIPPED  # the detector was armed again within a frame
        arms[port, Arm.IN_FLIGHT] = NOTHING_IN_FLIGHT
    elif frame == newest and packet.unit > arms[port, Arm.IN_FLIGHT]:
        cut(ring, open_slot(ring, local[Local.CONFIRMED], frame))
        return LATE
    if not is_after_pause:
        target = arm_to_join(ring, local, port)
        if frame <= newest:
            return begin_doubt(assembly, packet, clock, AGAIN, target)
        if frame - newest > np.uint64(local[Local.WINDOW]):
            return begin_doubt(assembly, packet, clock, AHEAD, target)
    return _enter(assembly, packet, clock)


@kernel
def _enter(assembly: Any, packet: Any, clock: Any) -> int:
    """Let a port enter the arm of a run, or begin after the receiver began, with its first packet there.

    A port that had shown nothing at all may have been opened within a frame.
    """
    ring, local = assembly.ring, assembly.local
    arms, port, frame = ring.arms, packet.port, packet.frame
    arm = arm_to_join(ring, local, port) if arms[port, Arm.IS_FRESH] != 0 else local[Local.CONFIRMED]
    slot = open_slot(ring, arm, frame)
    if slot < 0:
        slot = open_elsewhere(ring, local, port, frame)
        if slot >= 0:
            arm = ring.slots[slot].arm
    if slot < 0 and (was_opened(local, arm, frame) or was_passed(ring, port, arm, frame)):
        note_behind(ring, port, frame)
        slot = LATE
    elif slot < 0:
        slot = open_of(assembly, packet, clock, arm)
    if slot == NO_ROOM:
        return slot
    is_begin = ring.words[Word.RUN_KEPT] == 0 and ring.words[Word.RUN_DROPPED] == 0
    if arms[port, Arm.IS_HEARD] == 0 and packet.unit != arms[port, Arm.FIRST_UNIT] and is_begin:
        cut(ring, slot)
    enter_arm(arms, port, arm, frame)
    arms[port, Arm.IS_HEARD], arms[port, Arm.IS_FRESH] = 1, 0
    return slot
