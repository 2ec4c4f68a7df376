"""Compiled rule of who says that a detector was armed again, or that its numbers jumped far ahead.

The first witness is a packet that a port's numbers do not explain. It is put into an image
of the arm that it would be of, which waits (``daq_core.assembling.doubts``).

* After a pause a second, different packet with the same number or a higher one confirms it.
  After a short one only where the first was a frame's first packet, or another port is sure
  already: a detector that is slow has late packets after pauses, too.
* Without a pause one more than a whole frame of them confirms it.
* A packet above the port's old newest number refutes it; of numbers far ahead, one below
  them does, unless an image of before still lacks or has it: that one was delayed.
* The same number is never believed without a longer pause, nor for a copy of the last packet
  that an unfinished image has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import RESTART_PAUSE_NS, SAME_PAUSE_NS, open_of, open_slot, was_opened
from daq_core.assembling.assembly import LATE, NO_ROOM, is_marked
from daq_core.assembling.doubts import AGAIN, AHEAD, NO_DOUBT, cancel, confirm, hold
from daq_core.assembling.local import Local
from daq_core.kernels.compiling import kernel
from daq_core.ring.words import Arm

UNDECIDED = -9


@kernel
def begin_doubt(assembly: Any, packet: Any, clock: Any, kind: int, target: int) -> int:
    """Place the first witness of a new arm or of numbers far ahead."""
    ring, local = assembly.ring, assembly.local
    arms, port = ring.arms, packet.port
    slot = open_slot(ring, target, packet.frame)
    if slot < 0:
        slot = open_of(assembly, packet, clock, target)
        if slot < 0:
            return slot
    elif is_marked(ring, slot, packet.unit):
        return slot
    arms[port, Arm.NEEDED] = _units_needed(assembly, packet, kind, target)
    arms[port, Arm.DOUBT], arms[port, Arm.TARGET] = kind, target
    arms[port, Arm.WITNESS] = arms[port, Arm.LATEST] = np.int64(packet.frame)
    arms[port, Arm.EVIDENCE] = packet.n_units
    arms[port, Arm.AFTER_PAUSE] = arms[port, Arm.PAUSE_NS] >= RESTART_PAUSE_NS
    local[Local.ARMS] = max(local[Local.ARMS], target)
    hold(ring, port, slot)
    if packet.n_units >= arms[port, Arm.NEEDED]:
        confirm(ring, local, port)
    return slot


@kernel
def _units_needed(assembly: Any, packet: Any, kind: int, target: int) -> Any:
    """Return how many units confirm a doubt, those of the first witness counted."""
    arms, port, n_units = assembly.ring.arms, packet.port, packet.n_units
    all_units = arms[port, Arm.N_UNITS]
    is_after_pause = arms[port, Arm.PAUSE_NS] >= RESTART_PAUSE_NS
    needed = all_units + 1
    if arms[port, Arm.IS_STREAM] != 0 and is_after_pause:
        needed = np.int64(1)
    elif kind == AHEAD:
        needed = np.int64(n_units + 1)
    elif arms[port, Arm.IS_FRESH] != 0:
        needed = max(all_units, n_units + 1)
    elif packet.frame == np.uint64(arms[port, Arm.NEWEST]):
        needed = min(all_units, n_units + 1)
    elif is_after_pause and _begins_arm(assembly, packet, target):
        needed = np.int64(n_units + 1)
    return needed


@kernel
def _begins_arm(assembly: Any, packet: Any, target: int) -> bool:
    """Tell whether a packet after a pause looks like the first of an arm, not like a late one."""
    arms, port = assembly.ring.arms, packet.port
    is_long = arms[port, Arm.PAUSE_NS] >= SAME_PAUSE_NS
    is_first = packet.unit == arms[port, Arm.FIRST_UNIT]
    return bool(is_long or is_first or target <= assembly.local[Local.CONFIRMED])


@kernel
def find_in_doubt(assembly: Any, packet: Any, clock: Any) -> int:
    """Find the image of a packet of a port in doubt; UNDECIDED: it is in none, or not any more."""
    ring, local = assembly.ring, assembly.local
    arms, port, frame = ring.arms, packet.port, packet.frame
    if arms[port, Arm.DOUBT] == NO_DOUBT:
        return UNDECIDED
    target = arms[port, Arm.TARGET]
    slot = open_slot(ring, target, frame)
    is_below = frame <= np.uint64(arms[port, Arm.NEWEST])
    own = -1
    if arms[port, Arm.DOUBT] == AGAIN or is_below:
        own = open_slot(ring, arms[port, Arm.ARM], frame)
    is_new = slot < 0 or not is_marked(ring, slot, packet.unit)
    if _is_refuted(assembly, packet, own, is_new):
        return UNDECIDED if cancel(ring, local, port) else NO_ROOM
    if own >= 0 and not is_marked(ring, own, packet.unit) and not _prefers_new_arm(arms, packet):
        return own
    if not is_new:
        return slot
    if arms[port, Arm.DOUBT] == AGAIN and _is_of_old_arm(arms, packet):
        if own >= 0 or was_opened(local, arms[port, Arm.ARM], frame):
            return LATE
        return open_of(assembly, packet, clock, arms[port, Arm.ARM])
    if slot < 0:
        if was_opened(local, target, frame):
            return LATE
        slot = open_of(assembly, packet, clock, target)
        if slot < 0:
            return slot
    hold(ring, port, slot)
    arms[port, Arm.WITNESS] = np.int64(min(frame, np.uint64(arms[port, Arm.WITNESS])))
    arms[port, Arm.LATEST] = np.int64(max(frame, np.uint64(arms[port, Arm.LATEST])))
    arms[port, Arm.EVIDENCE] += packet.n_units
    if arms[port, Arm.EVIDENCE] >= arms[port, Arm.NEEDED]:
        confirm(ring, local, port)
    return slot


@kernel
def _is_refuted(assembly: Any, packet: Any, own: int, is_new: bool) -> bool:
    """Tell whether a packet says that what was in doubt is not so; `own`: open image of it in the old arm."""
    ring, window = assembly.ring, np.uint64(assembly.local[Local.WINDOW])
    arms, port, frame = ring.arms, packet.port, packet.frame
    newest, witness = np.uint64(arms[port, Arm.NEWEST]), np.uint64(arms[port, Arm.WITNESS])
    if arms[port, Arm.DOUBT] == AHEAD:
        if frame <= newest and own >= 0:
            return False  # it was only delayed, as is what comes at a jump's heels
        latest = np.uint64(arms[port, Arm.LATEST])
        return bool(frame < witness or (frame > latest and frame - latest > window))
    if frame == newest:
        if own >= 0 and not is_marked(ring, own, packet.unit) and not _prefers_new_arm(arms, packet):
            return True
        if arms[port, Arm.IS_FRESH] != 0 and packet.unit > arms[port, Arm.IN_FLIGHT]:
            return True
    is_before = frame < witness and arms[port, Arm.AFTER_PAUSE] == 0
    is_once_more = not is_new and arms[port, Arm.PAUSE_NS] >= SAME_PAUSE_NS
    return bool(frame > newest or is_before or is_once_more)


@kernel
def _prefers_new_arm(arms: Any, packet: Any) -> bool:
    """Tell whether a packet that both arms could have is rather of the new one."""
    port = packet.port
    return bool(arms[port, Arm.AFTER_PAUSE] != 0 and packet.frame >= np.uint64(arms[port, Arm.WITNESS]))


@kernel
def _is_of_old_arm(arms: Any, packet: Any) -> bool:
    """Tell whether a number is nearer to the newest of the old arm than of the new one: it is late."""
    port, frame = packet.port, packet.frame
    latest = np.uint64(arms[port, Arm.LATEST])
    return bool(
        arms[port, Arm.AFTER_PAUSE] == 0
        and frame > latest
        and frame - latest > np.uint64(arms[port, Arm.NEWEST]) - frame
    )
