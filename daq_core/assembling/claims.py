"""Compiled rule of what a frame number means: which image a packet belongs to, or whether it is late.

Judged per port, by what the port has shown before (``daq_core.assembling.arms``):

* A packet of an image that is open and lacks it belongs there.
* A number above the port's newest is its next image; it is late when others have had
  that image and it is gone. One more than the window ahead needs a second witness.
* A number at or below the newest, of no open image, is late, or the detector was armed
  again. After a pause a second, different packet with the same number or a higher one
  says so; without one more than a whole frame of them does, and after a short pause that
  does not begin with a frame's first packet. A packet above the old newest
  says that it was not. The same number is never believed without a longer pause, nor for
  a copy of the last packet that an unfinished image has.
* What the first witnesses brought is in its images meanwhile, which wait (HELD).

A message of a stream is a whole image, and after a pause its own witness.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import (
    AGAIN,
    AHEAD,
    NO_DOUBT,
    NOTHING_IN_FLIGHT,
    RESTART_PAUSE_NS,
    SAME_PAUSE_NS,
    arm_to_join,
    cancel,
    cancel_arm,
    confirm,
    cut,
    enter_arm,
    highest_unit,
    hold,
    note_behind,
    open_elsewhere,
    open_slot,
    remember,
    rise,
    was_opened,
    was_passed,
)
from daq_core.assembling.assembly import (
    DUPLICATE,
    LATE,
    NO_ROOM,
    NO_SLOT,
    Local,
    has_room,
    is_marked,
    open_image,
    refuse,
    was_refused,
)
from daq_core.kernels.compiling import inlined_kernel, kernel
from daq_core.ring.ring import GOOD, ID_MISMATCH, OPEN, SKIPPED, Arm, Word

UNDECIDED = -9


@inlined_kernel
def claim(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    hint: int,
    now: int,
    real: int,
) -> int:
    """Find the image of a packet and mark its units as arrived.

    Parameters
    ----------
    port            : int       row of the layout
    frame, image_id : uint64    what packets are matched by, and what the file shows
    unit, n_units   : int       bits of the packet in the image's bitmap
    hint            : int       slot of the port's packet before; -1 for none
    now, real       : int       monotonic and real time in ns

    Returns
    -------
    int  the slot to put the pixels into, and Local.CLAIMED is the number of units that are new in it;
         or LATE, DUPLICATE or NO_SLOT, which are counted;
         or NO_ROOM: nothing is counted, the caller has to settle what it has taken, and to give up the
         oldest image if Local.WANTS_ROOM says so, before it asks again
    """
    slot = hint
    if slot < 0 or ring.slots[slot].frame != frame or ring.slots[slot].state != OPEN:
        slot = _find(ring, local, port, frame, image_id, unit, n_units, now, real)
    if slot >= 0 and is_marked(ring, slot, unit):
        ring.words[Word.DUPLICATE] += 1
        return DUPLICATE
    if slot == LATE:
        ring.words[Word.LATE] += 1
    elif slot == NO_SLOT:
        refuse(ring, local, frame)
    if slot < 0:
        return slot
    image = ring.slots[slot]
    if image.image_id != image_id and image.status == GOOD:
        image.status = ID_MISMATCH
    image.newest_ns = now
    before = image.n_received
    for i in range(unit, unit + n_units):
        if not is_marked(ring, slot, i):
            ring.marks[slot, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
            image.n_received += 1
    local[Local.CLAIMED] = image.n_received - before
    return slot


@kernel
def _find(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
) -> int:
    """Return the slot of a packet's image, opening one if need be; or what :func:`claim` answers else."""
    slot = _find_in_doubt(ring, local, port, frame, image_id, unit, n_units, now, real)
    if slot == UNDECIDED:
        arms = ring.arms
        slot = open_slot(ring, arms[port, Arm.ARM], frame)
        if slot >= 0 and not is_marked(ring, slot, unit) and arms[port, Arm.IS_HEARD] != 0:
            rise(local, arms, port, frame)
            arms[port, Arm.LATE_FRAMES] = 0
        elif arms[port, Arm.IS_HEARD] == 0:
            slot = _enter(ring, local, port, frame, image_id, unit, now, real)
        elif arms[port, Arm.IS_FRESH] != 0:
            slot = _find_in_new_run(ring, local, port, frame, image_id, unit, n_units, now, real, slot)
        elif frame > np.uint64(arms[port, Arm.NEWEST]) and slot < 0:
            slot = _find_rising(ring, local, port, frame, image_id, unit, n_units, now, real)
        else:
            slot = _find_again(ring, local, port, frame, image_id, unit, n_units, now, real, slot)
    if slot != NO_ROOM:
        ring.arms[port, Arm.PAUSE_NS] = 0
    return slot


@kernel
def _find_rising(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
) -> int:
    """Find the image of a number above the port's newest, which is not open in its arm."""
    arms = ring.arms
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
            return _doubt(ring, local, port, frame, image_id, unit, n_units, now, real, AHEAD, arm)
        else:
            slot = _open(ring, local, arm, frame, image_id, now, real)
    if slot != NO_ROOM:
        rise(local, arms, port, frame)
    return slot


@kernel
def _find_again(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
    slot: int,
) -> int:
    """Find the image of a number at or below the newest; `slot`: of the open image that has the packet."""
    arms = ring.arms
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
            return _open(ring, local, arm, frame, image_id, now, real)
        if frame >= newest or is_full:
            return slot if slot >= 0 else LATE
    if is_stream and not is_known:
        return _open(ring, local, arm, frame, image_id, now, real)
    if slot >= 0 and _is_last_so_far(ring, slot, port, unit, n_units):
        return slot
    return _doubt(ring, local, port, frame, image_id, unit, n_units, now, real, AGAIN, target)


@kernel
def _is_last_so_far(ring: Any, slot: int, port: int, unit: int, n_units: int) -> bool:
    """Tell whether a packet is a copy of the last that an image has, and more may come.

    Who stood still within a frame goes on with that; who begins anew does so with a frame's first.
    """
    first = ring.arms[port, Arm.FIRST_UNIT]
    end = first + ring.arms[port, Arm.N_UNITS]
    return bool(first < unit and unit + n_units == highest_unit(ring, slot, port) + 1 < end)


@kernel
def _find_in_new_run(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
    slot: int,
) -> int:
    """Find the image of a port's first packets in a run; `slot`: of the open image that has it already.

    What came before the run is forgotten, but for the frame that was in flight, and for numbers
    that a port falls back to without a pause: they are late.
    """
    arms = ring.arms
    newest = np.uint64(arms[port, Arm.NEWEST])
    is_after_pause = arms[port, Arm.PAUSE_NS] >= RESTART_PAUSE_NS or arms[port, Arm.IS_STREAM] != 0
    if slot >= 0:
        if not is_after_pause:
            return slot
        ring.slots[slot].state = SKIPPED  # the detector was armed again within a frame
        arms[port, Arm.IN_FLIGHT] = NOTHING_IN_FLIGHT
    elif frame == newest and unit > arms[port, Arm.IN_FLIGHT]:
        cut(ring, open_slot(ring, local[Local.CONFIRMED], frame))
        return LATE
    if not is_after_pause:
        target = arm_to_join(ring, local, port)
        if frame <= newest:
            return _doubt(ring, local, port, frame, image_id, unit, n_units, now, real, AGAIN, target)
        if frame - newest > np.uint64(local[Local.WINDOW]):
            return _doubt(ring, local, port, frame, image_id, unit, n_units, now, real, AHEAD, target)
    return _enter(ring, local, port, frame, image_id, unit, now, real)


@kernel
def _enter(
    ring: Any, local: Any, port: int, frame: Any, image_id: Any, unit: int, now: int, real: int
) -> int:
    """Let a port enter the arm of a run, or begin after the receiver began, with its first packet there.

    A port that had shown nothing at all may have been opened within a frame.
    """
    arms = ring.arms
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
        slot = _open(ring, local, arm, frame, image_id, now, real)
    if slot == NO_ROOM:
        return slot
    is_begin = ring.words[Word.RUN_KEPT] == 0 and ring.words[Word.RUN_DROPPED] == 0
    if arms[port, Arm.IS_HEARD] == 0 and unit != arms[port, Arm.FIRST_UNIT] and is_begin:
        cut(ring, slot)
    enter_arm(arms, port, arm, frame)
    arms[port, Arm.IS_HEARD], arms[port, Arm.IS_FRESH] = 1, 0
    return slot


@kernel
def _open(ring: Any, local: Any, arm: int, frame: Any, image_id: Any, now: int, real: int) -> int:
    slot = open_image(ring, local, arm, frame, image_id, now, real)
    if slot >= 0:
        remember(local, arm, frame)
    return slot


# ------------------------------------------------------------------ in doubt


@kernel
def _doubt(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
    kind: int,
    target: int,
) -> int:
    """Place the first witness of a new arm or of numbers far ahead."""
    arms = ring.arms
    slot = open_slot(ring, target, frame)
    if slot < 0:
        slot = _open(ring, local, target, frame, image_id, now, real)
        if slot < 0:
            return slot
    elif is_marked(ring, slot, unit):
        return slot
    is_after_pause = arms[port, Arm.PAUSE_NS] >= RESTART_PAUSE_NS
    all_units = arms[port, Arm.N_UNITS]
    if arms[port, Arm.IS_STREAM] != 0 and is_after_pause:
        needed = 1
    elif kind == AHEAD:
        needed = n_units + 1
    elif arms[port, Arm.IS_FRESH] != 0:
        needed = max(all_units, n_units + 1)
    elif frame == np.uint64(arms[port, Arm.NEWEST]):
        needed = min(all_units, n_units + 1)
    elif is_after_pause and _begins_arm(ring, local, port, unit, target):
        needed = n_units + 1
    else:
        needed = all_units + 1
    arms[port, Arm.DOUBT], arms[port, Arm.TARGET] = kind, target
    arms[port, Arm.WITNESS] = arms[port, Arm.LATEST] = np.int64(frame)
    arms[port, Arm.EVIDENCE], arms[port, Arm.NEEDED] = n_units, needed
    arms[port, Arm.AFTER_PAUSE] = is_after_pause
    local[Local.ARMS] = max(local[Local.ARMS], target)
    hold(ring, port, slot)
    if n_units >= needed:
        confirm(ring, local, port)
    return slot


@kernel
def _begins_arm(ring: Any, local: Any, port: int, unit: int, target: int) -> bool:
    """Tell whether a packet after a pause looks like the first of an arm, not like a late one.

    Who pauses for the time of some images between each two has late packets after pauses, too.
    """
    is_long = ring.arms[port, Arm.PAUSE_NS] >= SAME_PAUSE_NS
    return bool(is_long or unit == ring.arms[port, Arm.FIRST_UNIT] or target <= local[Local.CONFIRMED])


@kernel
def _find_in_doubt(
    ring: Any,
    local: Any,
    port: int,
    frame: Any,
    image_id: Any,
    unit: int,
    n_units: int,
    now: int,
    real: int,
) -> int:
    """Find the image of a packet of a port in doubt; UNDECIDED: it is in none, or not any more."""
    arms = ring.arms
    if arms[port, Arm.DOUBT] == NO_DOUBT:
        return UNDECIDED
    target = arms[port, Arm.TARGET]
    slot = open_slot(ring, target, frame)
    own = open_slot(ring, arms[port, Arm.ARM], frame) if arms[port, Arm.DOUBT] == AGAIN else -1
    is_new = slot < 0 or not is_marked(ring, slot, unit)
    if _is_refuted(ring, local, port, frame, unit, own, is_new):
        return UNDECIDED if cancel(ring, local, port) else NO_ROOM
    if own >= 0 and not is_marked(ring, own, unit) and not _prefers_new_arm(arms, port, frame):
        return own
    if not is_new:
        return slot
    if arms[port, Arm.DOUBT] == AGAIN and _is_of_old_arm(arms, port, frame):
        if own >= 0 or was_opened(local, arms[port, Arm.ARM], frame):
            return LATE
        return _open(ring, local, arms[port, Arm.ARM], frame, image_id, now, real)
    if slot < 0:
        if was_opened(local, target, frame):
            return LATE
        slot = _open(ring, local, target, frame, image_id, now, real)
        if slot < 0:
            return slot
    hold(ring, port, slot)
    arms[port, Arm.WITNESS] = np.int64(min(frame, np.uint64(arms[port, Arm.WITNESS])))
    arms[port, Arm.LATEST] = np.int64(max(frame, np.uint64(arms[port, Arm.LATEST])))
    arms[port, Arm.EVIDENCE] += n_units
    if arms[port, Arm.EVIDENCE] >= arms[port, Arm.NEEDED]:
        confirm(ring, local, port)
    return slot


@kernel
def _is_refuted(ring: Any, local: Any, port: int, frame: Any, unit: int, own: int, is_new: bool) -> bool:
    """Tell whether a packet says that what was in doubt is not so; `own`: open image of it in the old arm."""
    arms = ring.arms
    newest, witness = np.uint64(arms[port, Arm.NEWEST]), np.uint64(arms[port, Arm.WITNESS])
    if arms[port, Arm.DOUBT] == AHEAD:
        latest = np.uint64(arms[port, Arm.LATEST])
        return bool(frame < witness or (frame > latest and frame - latest > np.uint64(local[Local.WINDOW])))
    if frame == newest:
        if own >= 0 and not is_marked(ring, own, unit) and not _prefers_new_arm(arms, port, frame):
            return True
        if arms[port, Arm.IS_FRESH] != 0 and unit > arms[port, Arm.IN_FLIGHT]:
            return True
    is_before = frame < witness and arms[port, Arm.AFTER_PAUSE] == 0
    is_once_more = not is_new and arms[port, Arm.PAUSE_NS] >= SAME_PAUSE_NS
    return bool(frame > newest or is_before or is_once_more)


@kernel
def _prefers_new_arm(arms: Any, port: int, frame: Any) -> bool:
    """Tell whether a packet that both arms could have is rather of the new one."""
    return bool(arms[port, Arm.AFTER_PAUSE] != 0 and frame >= np.uint64(arms[port, Arm.WITNESS]))


@kernel
def _is_of_old_arm(arms: Any, port: int, frame: Any) -> bool:
    """Tell whether a number is nearer to the newest of the old arm than of the new one: it is late."""
    latest = np.uint64(arms[port, Arm.LATEST])
    return bool(
        arms[port, Arm.AFTER_PAUSE] == 0
        and frame > latest
        and frame - latest > np.uint64(arms[port, Arm.NEWEST]) - frame
    )
