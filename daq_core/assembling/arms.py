"""Compiled memory of what each port's frame numbers did: its arm, and its newest number.

A detector that is armed again begins to count anew, on all of its ports, but not at the
same instant for who reads them one after the other. So each port is judged by what it
has shown itself. Its numbers rise; one that does not, and belongs to no image that
waits for it, may be of a new *arm* or a packet that is late. The port is then *in
doubt*: what follows is placed, but images with packets in doubt are HELD, until the
port confirms its new arm or is back at its old numbers (``daq_core.assembling.witnesses`` has the
rule). The same is done with a number far ahead. An image belongs to an arm and a
number; a port that was armed again looks for the arm that others began before it.

How long a port was silent is only known as far as its socket was found empty
meanwhile: a receiver that stood still itself takes nothing for a pause.

Everything here happens inside the gate of ``daq_core.assembling.gate``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import is_marked, open_image
from daq_core.assembling.local import REMEMBERED, Local
from daq_core.detectors import Layout
from daq_core.kernels.compiling import kernel
from daq_core.ring.ring import CUT, HELD, OPEN, Ring
from daq_core.ring.words import Arm, Word

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
def open_of(assembly: Any, packet: Any, clock: Any, arm: int) -> int:
    """Open an image of an arm for its first packet; answers as ``assembly.open_image``."""
    slot = open_image(assembly, packet, clock, arm)
    if slot >= 0:
        remember(assembly.local, arm, packet.frame)
    return slot


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


@kernel
def cut(ring: Any, slot: int) -> None:
    """Let an image be in no run unless all of it comes: its first packets came before."""
    if slot >= 0 and ring.slots[slot].unwanted == 0:
        ring.slots[slot].unwanted = CUT
