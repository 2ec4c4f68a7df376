"""Compiled memory of what each port's frame numbers did: its arm, its newest number, its doubt.

A detector that is armed again begins to count anew, on all of its ports, but not at the
same instant for who reads them one after the other. So each port is judged by what it
has shown itself. Its numbers rise; one that does not, and belongs to no image that
waits for it, may be of a new *arm* or a packet that is late. The port is then *in
doubt*: what follows is placed, but images with packets in doubt are HELD, until the
port confirms its new arm or is back at its old numbers (``daq_core.assembling.claims`` has the
rule). The same is done with a number far ahead. An image belongs to an arm and a
number; a port that was armed again looks for the arm that others began before it.

How long a port was silent is only known as far as its socket was found empty
meanwhile: a receiver that stood still itself takes nothing for a pause.

Everything here happens inside the gate of ``daq_core.assembling.gate``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import (
    REMEMBERED,
    Local,
    is_marked,
    is_settled,
    is_taking,
    last_open,
)
from daq_core.detectors import Layout
from daq_core.kernels.compiling import fetch_add, kernel, yield_cpu
from daq_core.ring.ring import CUT, HELD, OPEN, SKIPPED, Arm, Ring, Word

NO_DOUBT, AGAIN, AHEAD = range(3)  # the port was armed again, or its numbers jumped far ahead

RESTART_PAUSE_NS = 5_000_000  # late packets come in the crowd, the first ones of an arm after a pause
SAME_PAUSE_NS = 50_000_000  # before the same number again is another image, not the same packet
NOTHING_IN_FLIGHT = 2**62
LAGGING_FRAMES = 5  # images in a row: less may be a moment in which somebody waited


def forget_arms(ring: Ring, local: Any, layout: Layout) -> None:
    """Begin without memory, as a receiver does: no port has shown anything, no image is any port's."""
    arms = ring.arms
    arms[:] = 0
    first = int(ring.slots["arm"].max()) + 1
    local[Local.ARMS] = local[Local.CONFIRMED] = first
    arms[:, Arm.ARM] = first
    arms[:, Arm.N_UNITS] = arms[:, Arm.PACKET_UNITS] = arms[:, Arm.TURNS] = 1
    arms[:, Arm.IS_STREAM] = len(layout.ports) == 0
    arms[:, Arm.IN_FLIGHT] = NOTHING_IN_FLIGHT
    for port, here in enumerate(layout.ports):
        arms[port, Arm.FIRST_UNIT] = here.first_unit
        arms[port, Arm.N_UNITS] = here.n_units
        arms[port, Arm.PACKET_UNITS] = here.units_per_packet
        arms[port, Arm.MODULE] = here.module_index
        arms[port, Arm.TURNS] = layout.turns


# ------------------------------------------------------------------ pauses


@kernel
def begin_reading(arms: Any, port: int, now: int) -> None:
    """Note, before a socket is read, that what it gave the last time had come by now."""
    if arms[port, Arm.WAS_READ] != 0:
        arms[port, Arm.HEARD_NS] = now
        arms[port, Arm.WAS_READ] = 0


@kernel
def note_batch(arms: Any, port: int, n: int, batch: int, now: int) -> None:
    """Note what a socket gave, n of the datagrams that it could have: its silence before them, and after."""
    if n > 0:
        arms[port, Arm.SINCE_NS] = arms[port, Arm.EMPTY_NS]
        arms[port, Arm.PAUSE_NS] = arms[port, Arm.EMPTY_NS] - arms[port, Arm.HEARD_NS]
        arms[port, Arm.WAS_READ] = 1
    if n < batch:
        arms[port, Arm.EMPTY_NS] = now


# ------------------------------------------------------------------ images of an arm


@kernel
def open_slot(ring: Any, arm: int, frame: Any) -> int:
    """Return the slot of an open image, -1 when there is none."""
    n_slots = ring.slots.shape[0]
    for sequence in range(ring.words[Word.OPENED] - 1, ring.words[Word.PUBLISHED] - 1, -1):
        slot: int = sequence % n_slots
        if ring.slots[slot].frame == frame and ring.slots[slot].arm == arm and is_open(ring, slot):
            return slot
    return -1


@kernel
def is_open(ring: Any, slot: int) -> bool:
    """Tell whether an image still takes packets."""
    return bool(ring.slots[slot].state == OPEN or ring.slots[slot].state == HELD)


@kernel
def has_part(ring: Any, slot: int, port: int) -> bool:
    """Tell whether an image has a packet of a port."""
    first, found = ring.arms[port, Arm.FIRST_UNIT], False
    for unit in range(first, first + ring.arms[port, Arm.N_UNITS]):
        found |= is_marked(ring, slot, unit)
    return found


@kernel
def highest_unit(ring: Any, slot: int, port: int) -> Any:
    """Return the last unit of a port that an image has; below the port's first when it has none."""
    first = ring.arms[port, Arm.FIRST_UNIT]
    for unit in range(first + ring.arms[port, Arm.N_UNITS] - 1, first - 1, -1):
        if is_marked(ring, slot, unit):
            return unit
    return first - 1


@kernel
def was_opened(local: Any, arm: int, frame: Any) -> bool:
    """Tell whether an arm has had an image of that number, among the last REMEMBERED."""
    at = _place_of(arm, frame)
    return bool(local[at] == np.int64(frame) and local[at + 1] == arm + 1)


@kernel
def remember(local: Any, arm: int, frame: Any) -> None:
    """Keep in mind that an image was opened."""
    at = _place_of(arm, frame)
    local[at], local[at + 1] = np.int64(frame), arm + 1


@kernel
def forget(local: Any, arm: int, frame: Any) -> None:
    """Take back that an image was opened."""
    if was_opened(local, arm, frame):
        local[_place_of(arm, frame) + 1] = 0


@kernel
def _place_of(arm: int, frame: Any) -> Any:
    """Numbers that follow each other have places that do; those of another arm, or far off, lie elsewhere."""
    mask = np.uint64(REMEMBERED - 1)
    far = (frame >> np.uint64(12) & mask) + (frame >> np.uint64(60)) * np.uint64(97)
    return Local.KNOWN + 2 * ((np.int64((frame & mask) + far) + arm * 977) & (REMEMBERED - 1))


@kernel
def was_passed(ring: Any, port: int, arm: int, frame: Any) -> bool:
    """Tell whether others in an arm have had a number so long ago that nobody remembers."""
    arms = ring.arms
    for other in range(arms.shape[0]):
        newest = np.uint64(arms[other, Arm.NEWEST])
        if (
            other != port
            and arms[other, Arm.ARM] == arm
            and newest > frame
            and newest - frame >= np.uint64(REMEMBERED // 2)
            and np.uint64(arms[other, Arm.FIRST]) <= frame
        ):
            return True
    return False


@kernel
def arm_to_join(ring: Any, local: Any, port: int) -> Any:
    """Return the arm that a port enters: the first that others have begun and that waits for it.

    An arm whose last packet came well before the port was last silent waits in vain. When
    none waits the port is the first: the arm is a new one, or, when the run is new to the
    port, that of the run.
    """
    arms = ring.arms
    n_slots = ring.slots.shape[0]
    is_fresh = arms[port, Arm.IS_FRESH] != 0
    found = np.int64(0)
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        slot = sequence % n_slots
        arm = ring.slots[slot].arm
        if (
            arm > arms[port, Arm.ARM]
            and (found == 0 or arm < found)
            and is_open(ring, slot)
            and arms[port, Arm.SINCE_NS] - ring.slots[slot].newest_ns < SAME_PAUSE_NS
            and not has_part(ring, slot, port)
        ):
            found = arm
    if found != 0:
        return found
    return local[Local.CONFIRMED] if is_fresh else local[Local.ARMS] + 1


@kernel
def open_elsewhere(ring: Any, local: Any, port: int, frame: Any) -> Any:
    """Return the slot of an open image of that number in another arm, without this port; or -1.

    A port may miss that it was armed again, or have taken late packets for it. The way back is
    only open to a port that is alone in its arm, or when no port is sure of that arm.
    """
    arms = ring.arms
    mine = arms[port, Arm.ARM]
    may_return = True
    for other in range(arms.shape[0]):
        may_return &= other == port or arms[other, Arm.ARM] < mine
    may_return |= mine > local[Local.CONFIRMED]
    n_slots = ring.slots.shape[0]
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        slot = sequence % n_slots
        image = ring.slots[slot]
        if (
            image.frame == frame
            and (image.arm > mine or (image.arm < mine and may_return))
            and sequence >= ring.words[Word.RUN_FIRST]
            and is_open(ring, slot)
            and not has_part(ring, slot, port)
        ):
            return slot
    return -1


@kernel
def enter_arm(arms: Any, port: int, arm: int, frame: Any) -> None:
    """Let a port go on in an arm, or far from where it was, with this number."""
    if arm != arms[port, Arm.ARM]:
        arms[port, Arm.ENTERED_NS] = arms[port, Arm.HEARD_NS]
    arms[port, Arm.ARM] = arm
    arms[port, Arm.NEWEST] = arms[port, Arm.FIRST] = np.int64(frame)


@kernel
def rise(local: Any, arms: Any, port: int, frame: Any) -> None:
    """Let a port's newest number be this one, if it is higher."""
    newest = np.uint64(arms[port, Arm.NEWEST])
    if frame > newest:
        arms[port, Arm.NEWEST] = np.int64(frame)
        if frame - newest > np.uint64(local[Local.WINDOW]):
            arms[port, Arm.FIRST] = np.int64(frame)


@kernel
def note_behind(ring: Any, port: int, frame: Any) -> None:
    """Keep how far a port is behind others whose image of that number is gone already, if it stays so."""
    arms = ring.arms
    arms[port, Arm.LATE_FRAMES] += 1
    if arms[port, Arm.LATE_FRAMES] < LAGGING_FRAMES:
        return
    for other in range(arms.shape[0]):
        newest = np.uint64(arms[other, Arm.NEWEST])
        if arms[other, Arm.ARM] == arms[port, Arm.ARM] and newest > frame:
            arms[port, Arm.BEHIND] = max(arms[port, Arm.BEHIND], np.int64(newest - frame))


# ------------------------------------------------------------------ doubts


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
    _count_held(ring, port, 0)
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
def _count_held(ring: Any, port: int, n_late: int) -> None:
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
    _count_held(ring, port, n_late)


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


# ------------------------------------------------------------------ runs


@kernel
def begin_arms(ring: Any, local: Any) -> None:
    """Let a run begin: each port enters its arm with its first packet that is not of a frame in flight.

    The number a port showed last after a pause is believed, without a witness: what follows of that
    frame was in flight.
    """
    arms = ring.arms
    n_slots = ring.slots.shape[0]
    for port in range(arms.shape[0]):
        if arms[port, Arm.DOUBT] != NO_DOUBT and arms[port, Arm.AFTER_PAUSE] == 0:
            while not cancel(ring, local, port):
                yield_cpu()
        if arms[port, Arm.DOUBT] != NO_DOUBT:
            arms[port, Arm.ARM], arms[port, Arm.NEWEST] = arms[port, Arm.TARGET], arms[port, Arm.LATEST]
            arms[port, Arm.DOUBT] = NO_DOUBT
            _count_held(ring, port, 0)
        arms[port, Arm.IN_FLIGHT] = _last_unit(ring, port)
        arms[port, Arm.IS_FRESH] = 1
        arms[port, Arm.BEHIND] = 0
    for sequence in range(ring.words[Word.PUBLISHED], ring.words[Word.OPENED]):
        if ring.slots[sequence % n_slots].state == HELD:
            ring.slots[sequence % n_slots].state = OPEN
    local[Local.ARMS] += 1
    local[Local.CONFIRMED] = local[Local.ARMS]


@kernel
def _last_unit(ring: Any, port: int) -> int:
    """Return the last unit of a port's newest image, of which more may come; else NOTHING_IN_FLIGHT."""
    arms = ring.arms
    slot = last_open(ring, arms[port, Arm.ARM], np.uint64(arms[port, Arm.NEWEST]))
    if slot < 0 or arms[port, Arm.IS_HEARD] == 0:
        return NOTHING_IN_FLIGHT
    first = arms[port, Arm.FIRST_UNIT]
    last, n_units = NOTHING_IN_FLIGHT, np.int64(0)
    for unit in range(first, first + arms[port, Arm.N_UNITS]):
        if is_marked(ring, slot, unit):
            last = unit
            n_units += 1
    return last if n_units < arms[port, Arm.N_UNITS] else NOTHING_IN_FLIGHT


@kernel
def cut(ring: Any, slot: int) -> None:
    """Let an image be in no run unless all of it comes: its first packets came before."""
    if slot >= 0 and ring.slots[slot].unwanted == 0:
        ring.slots[slot].unwanted = CUT
