"""Compiled doubts of ports: what they brought waits in images that are HELD, until the doubt is over.

A doubt that is confirmed makes a new arm, or takes a port to where its numbers jumped. One that
is cancelled leaves the port where it was: its packets are taken out of their images again and are
late; an image whose number the port's own arm had not seen is kept, for its packets merely came
in another order. Who begins a doubt, and who ends it, says ``daq_core.assembling.witnesses``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import enter_arm, forget, has_part, is_open, remember, was_opened
from daq_core.assembling.assembly import is_marked, is_settled
from daq_core.assembling.local import Local
from daq_core.assembling.runs import is_taking
from daq_core.kernels.compiling import fetch_add, kernel, yield_cpu
from daq_core.ring.ring import HELD, OPEN, SKIPPED
from daq_core.ring.words import Arm, Word

NO_DOUBT, AGAIN, AHEAD = range(3)  # the port was armed again, or its numbers jumped far ahead


@kernel
def is_in_doubt(ring: Any, slot: int, port: int) -> bool:
    """Tell whether an image has packets of a port of which nobody knows yet whether they are its own."""
    arms = ring.arms
    image = ring.slots[slot]
    frame = np.uint64(image.frame)
    witness = np.uint64(arms[port, Arm.WITNESS])
    return bool(
        arms[port, Arm.DOUBT] != NO_DOUBT
        and image.arm == arms[port, Arm.TARGET]
        and witness <= frame <= np.uint64(arms[port, Arm.LATEST])
        and (frame - witness) % np.uint64(arms[port, Arm.TURNS]) == 0
        and has_part(ring, slot, port)
    )


@kernel
def confirm(ring: Any, local: Any, port: int) -> None:
    """A port is in its new arm, or at its new numbers; restarts are counted once for all ports."""
    arms = ring.arms
    target = arms[port, Arm.TARGET]
    if arms[port, Arm.DOUBT] == AGAIN:
        if arms[port, Arm.IS_FRESH] == 0:
            ring.words[Word.RESTARTS] += target > local[Local.CONFIRMED]
        local[Local.N_DROPS] = 0
    local[Local.CONFIRMED] = max(local[Local.CONFIRMED], target)
    count_held(ring, port, 0)
    enter_arm(arms, port, target, np.uint64(arms[port, Arm.WITNESS]))
    arms[port, Arm.NEWEST] = arms[port, Arm.LATEST]
    arms[port, Arm.IS_FRESH] = 0
    arms[port, Arm.DOUBT] = NO_DOUBT
    _release(ring)


@kernel
def hold(ring: Any, port: int, slot: int) -> None:
    """Let an image wait with a packet in doubt; who took the packet counts it, which is taken back."""
    ring.slots[slot].state = HELD
    ring.arms[port, Arm.N_HELD] += 1
    ring.words[Word.RECEIVED] -= 1
    ring.words[Word.PLACED] -= 1
    ring.module_packets[ring.arms[port, Arm.MODULE]] -= 1


@kernel
def count_held(ring: Any, port: int, n_late: int) -> None:
    """Count the packets that were in doubt, so many of which were late."""
    n_held = ring.arms[port, Arm.N_HELD]
    n_late = min(n_late, n_held)
    ring.arms[port, Arm.N_HELD] = 0
    ring.words[Word.RECEIVED] += n_held
    ring.words[Word.PLACED] += n_held - n_late
    ring.words[Word.LATE] += n_late
    ring.module_packets[ring.arms[port, Arm.MODULE]] += n_held - n_late


@kernel
def cancel(ring: Any, local: Any, port: int) -> bool:
    """A port is where it was: what it brought in doubt is late, or of an image that nobody had seen.

    The latter is settled then for all ports that brought some of it.

    Returns
    -------
    bool  False: pixels of images in doubt are still being copied, and nothing is changed
    """
    n_slots = ring.slots.shape[0]
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        slot = sequence % n_slots
        if ring.slots[slot].state == HELD and not is_settled(ring, slot):
            return False
    ring.arms[port, Arm.IS_MOOT] = 1
    n_moot = 1
    while n_moot > 0:
        n_moot = 0
        for other in range(ring.arms.shape[0]):
            if ring.arms[other, Arm.IS_MOOT] != 0:
                ring.arms[other, Arm.IS_MOOT] = 0
                _take_back(ring, local, other)
                n_moot += 1
    _release(ring)
    return True


@kernel
def cancel_arm(ring: Any, local: Any, arm: int) -> bool:
    """An arm of which no port is sure is none; False as for :func:`cancel`."""
    for port in range(ring.arms.shape[0]):
        if ring.arms[port, Arm.DOUBT] == AGAIN and ring.arms[port, Arm.TARGET] == arm:
            return cancel(ring, local, port)
    return True


@kernel
def _take_back(ring: Any, local: Any, port: int) -> None:
    """End a port's doubt; what is in doubt goes to its own arm, or is withdrawn."""
    arms = ring.arms
    n_slots = ring.slots.shape[0]
    n_late = 0
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        slot = sequence % n_slots
        if not is_open(ring, slot) or not is_in_doubt(ring, slot, port):
            continue
        if _is_first_of_its_number(ring, local, slot, port):
            _give_back(ring, local, slot, port)
        else:
            n_late += _withdraw(ring, local, slot, port)
    arms[port, Arm.DOUBT] = NO_DOUBT
    count_held(ring, port, n_late)


@kernel
def _give_back(ring: Any, local: Any, slot: int, port: int) -> None:
    """Give an image to the port's own arm: with all else of the other arm, if no port is sure of that."""
    arms = ring.arms
    n_slots = ring.slots.shape[0]
    arm, own = ring.slots[slot].arm, arms[port, Arm.ARM]
    is_none = arm > local[Local.CONFIRMED]
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        here = sequence % n_slots
        image = ring.slots[here]
        is_of_none = is_none and image.arm == arm and is_open(ring, here)
        if here == slot or (is_of_none and not was_opened(local, own, image.frame)):
            for other in range(arms.shape[0]):
                if other != port and is_in_doubt(ring, here, other):
                    arms[other, Arm.IS_MOOT] = 1
            forget(local, arm, image.frame)
            image.arm = own
            remember(local, own, image.frame)
    for other in range(arms.shape[0]):
        if is_none and arms[other, Arm.ARM] == arm:
            arms[other, Arm.ARM] = own


@kernel
def _is_first_of_its_number(ring: Any, local: Any, slot: int, port: int) -> bool:
    """Tell whether an image is kept whatever comes of the doubt: the port's own arm has had none such."""
    arms = ring.arms
    return (
        arms[port, Arm.DOUBT] == AGAIN
        and arms[port, Arm.IS_FRESH] == 0
        and not was_opened(local, arms[port, Arm.ARM], ring.slots[slot].frame)
    )


@kernel
def _withdraw(ring: Any, local: Any, slot: int, port: int) -> Any:
    """Take a port's packets out of an image, and return how many; without any it is none."""
    arms = ring.arms
    first = arms[port, Arm.FIRST_UNIT]
    n_units = np.int64(0)
    for unit in range(first, first + arms[port, Arm.N_UNITS]):
        if is_marked(ring, slot, unit):
            ring.marks[slot, unit >> 6] &= ~(np.uint64(1) << np.uint64(unit & 63))
            n_units += 1
    ring.slots[slot].n_received -= n_units
    fetch_add(ring.placed, slot, -n_units)
    if ring.slots[slot].n_received == 0:
        ring.slots[slot].state = SKIPPED
        forget(local, ring.slots[slot].arm, ring.slots[slot].frame)
    return -(-n_units // arms[port, Arm.PACKET_UNITS])


@kernel
def _release(ring: Any) -> None:
    """Let images go on that no port doubts any more."""
    n_slots = ring.slots.shape[0]
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        slot = sequence % n_slots
        if ring.slots[slot].state == HELD and not _is_held(ring, slot):
            ring.slots[slot].state = OPEN


@kernel
def _is_held(ring: Any, slot: int) -> bool:
    found = False
    for port in range(ring.arms.shape[0]):
        found |= is_in_doubt(ring, slot, port)
    return found


@kernel
def judge(ring: Any, local: Any, slot: int, is_over: bool) -> bool:
    """Look at the doubts of an image that is the next to go; `is_over`: it waits no longer.

    Returns
    -------
    bool  whether it may go
    """
    arms = ring.arms
    is_whole = ring.slots[slot].n_received == local[Local.UNITS]
    is_kept = True
    for port in range(arms.shape[0]):
        if not is_in_doubt(ring, slot, port):
            continue
        is_shared = local[Local.UNITS] > arms[port, Arm.N_UNITS]
        if is_whole and is_shared and arms[port, Arm.AFTER_PAUSE] != 0:
            confirm(ring, local, port)
        elif is_over:
            _decide(ring, local, port)
        else:
            is_kept &= _is_first_of_its_number(ring, local, slot, port)
    if is_whole and is_kept and ring.slots[slot].state == HELD:
        for port in range(arms.shape[0]):
            if is_in_doubt(ring, slot, port):
                remember(local, arms[port, Arm.ARM], ring.slots[slot].frame)
        ring.slots[slot].state = OPEN
    return bool(ring.slots[slot].state != HELD)


@kernel
def _decide(ring: Any, local: Any, port: int) -> None:
    """End a doubt of which nothing more is to be expected: a whole frame of the port was no accident.

    While no run wants images, a number after a pause is believed: what follows of its frame is in flight.
    """
    arms = ring.arms
    is_believed = arms[port, Arm.AFTER_PAUSE] != 0 and not is_taking(ring)
    is_frame = 1 < arms[port, Arm.N_UNITS] <= arms[port, Arm.EVIDENCE]
    if arms[port, Arm.DOUBT] == AGAIN and (is_believed or is_frame):
        confirm(ring, local, port)
    else:
        cancel(ring, local, port)


@kernel
def end_doubts(ring: Any, local: Any) -> None:
    """Decide all doubts: nothing comes any more. Waits for who copies, which needs no gate."""
    for port in range(ring.arms.shape[0]):
        while ring.arms[port, Arm.DOUBT] != NO_DOUBT:
            _decide(ring, local, port)
            if ring.arms[port, Arm.DOUBT] != NO_DOUBT:
                yield_cpu()
