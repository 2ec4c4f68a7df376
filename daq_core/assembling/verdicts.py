"""Compiled verdicts on images whose format turns out not to be the config's.

A datagram of the detector's own that has a packet number (or a row) which the config's
frames do not have proves that its whole frame has another format: a detector of 32 bit
sends twice the packets of one of 16, and the first half of them look right. So the image
of that frame, in the arm of the port that brought it, is not good, whatever else is said
of it. The proof may come

- while the image is open: it gets its status;
- after it was published, as packet 64 of a frame that was complete with 63: its status in
  the ring is changed, and its sequence number is put down behind the words, where the
  writers find it, who may have the row in their file already;
- before any other packet of the frame: the frame is kept in mind for the image, if that is
  one of the next ``window``. When ``REMEMBERED_PROOFS`` frames wait like that, the oldest is
  forgotten, counted, and told in a warning.

The list of these is never full: an image gets one verdict, and between two looks of a
writer no images but those of two rings' length can get theirs.

A run is *judged* when no verdict on its images can be expected any more: each port has
shown a packet of an image that comes after them, or has been read to its end when
``GRACE_NS`` had passed since the newest packet in them. Writers close their files then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import has_part, is_open
from daq_core.assembling.doubts import NO_DOUBT
from daq_core.assembling.local import REMEMBERED_PROOFS, Local
from daq_core.kernels.compiling import kernel, store_release, wake
from daq_core.ring.ring import GOOD, OTHER_FORMAT, SKIPPED
from daq_core.ring.words import NO_END, Arm, SocketState, Word

GRACE_NS = 20_000_000
REACH = 1024  # images back that a proof looks for its own


@kernel
def convict(ring: Any, local: Any, port: int, frame: Any) -> None:
    """Take up the proof, of a port, that a frame has another format than the config's."""
    sequence = _convicted(ring, port, frame)
    if sequence < 0:
        _keep_in_mind(ring, local, frame)
        return
    image = ring.slots[sequence % ring.slots.shape[0]]
    former = image.status
    image.status = OTHER_FORMAT
    if former != OTHER_FORMAT and sequence < ring.words[Word.PUBLISHED] and image.state != SKIPPED:
        _put_down(ring, sequence, former)


@kernel
def _convicted(ring: Any, port: int, frame: Any) -> Any:
    """Return the sequence number of the image that a port's proof is of, -1 when it is not known yet.

    It is that of the port's own arm, or one that waits for the port in another. A port that has
    entered no arm of the run is believed of the newest image with that number.
    """
    words, arms = ring.words, ring.arms
    n_slots = ring.slots.shape[0]
    opened = words[Word.OPENED]
    oldest = max(opened - min(n_slots, REACH), min(words[Word.RUN_FIRST], words[Word.PUBLISHED]))
    is_placed = arms[port, Arm.IS_HEARD] != 0 and arms[port, Arm.IS_FRESH] == 0
    arm = _arm_of(arms, port, frame)
    found: Any = np.int64(-1)
    for sequence in range(opened - 1, oldest - 1, -1):
        slot = sequence % n_slots
        if ring.slots[slot].frame != frame:
            continue
        if ring.slots[slot].arm == arm or not is_placed:
            return sequence
        if found < 0 and is_open(ring, slot) and not has_part(ring, slot, port):
            found = sequence
    return found


@kernel
def _arm_of(arms: Any, port: int, frame: Any) -> Any:
    """Return the arm that a frame of a port is in: the new one, as far as the port shows it in its doubt."""
    witness, latest = np.uint64(arms[port, Arm.WITNESS]), np.uint64(arms[port, Arm.LATEST])
    if arms[port, Arm.DOUBT] != NO_DOUBT and witness <= frame <= latest:
        return arms[port, Arm.TARGET]
    return arms[port, Arm.ARM]


@kernel
def _put_down(ring: Any, sequence: int, former: int) -> None:
    """Tell the writers of an image that was published before."""
    words = ring.words
    is_in_run = words[Word.RUN_FIRST] <= sequence < words[Word.RUN_END]
    if not is_in_run or words[Word.RUN_JUDGED] == words[Word.RUN_EPOCH]:
        return  # nobody writes it any more
    words[Word.RUN_OTHER_FORMAT] += 1
    words[Word.RUN_NOT_GOOD] += former == GOOD
    n = words[Word.N_VERDICTS]
    words[Word.VERDICTS + n % (2 * ring.slots.shape[0])] = sequence
    store_release(words, Word.N_VERDICTS, n + 1)


@kernel
def _keep_in_mind(ring: Any, local: Any, frame: Any) -> None:
    """Remember a frame whose image is not known yet; when there are too many, instead of the oldest."""
    opened = ring.words[Word.OPENED]
    n = local[Local.N_EARLY]
    place, oldest = n, 0
    for i in range(n):
        known = Local.EARLY + 2 * i
        if local[known] == np.int64(frame):
            place = i
        elif local[known + 1] < local[Local.EARLY + 2 * oldest + 1]:
            oldest = i
    if place == REMEMBERED_PROOFS:
        place = oldest
        if opened - local[Local.EARLY + 2 * place + 1] <= local[Local.WINDOW]:
            ring.words[Word.RUN_FORGOTTEN] += 1
    elif place == n:
        local[Local.N_EARLY] = n + 1
    local[Local.EARLY + 2 * place] = np.int64(frame)
    local[Local.EARLY + 2 * place + 1] = opened


@kernel
def was_convicted(local: Any, image: Any) -> bool:
    """Tell whether the proof of an image's format came before its first packet; it is forgotten then.

    An image that was open when it came is of another arm.
    """
    n = local[Local.N_EARLY]
    for i in range(n):
        known = Local.EARLY + 2 * i
        if local[known] == np.int64(image.frame) and image.sequence >= local[known + 1]:
            is_near = image.sequence - local[known + 1] <= local[Local.WINDOW]
            last = Local.EARLY + 2 * (n - 1)
            local[known], local[known + 1] = local[last], local[last + 1]
            local[Local.N_EARLY] = n - 1
            return bool(is_near)
    return False


@kernel
def is_on_trial(ring: Any) -> bool:
    """Tell whether a run is over of whose images something may still turn out."""
    words = ring.words
    return bool(words[Word.RUN_END] != NO_END and words[Word.RUN_JUDGED] != words[Word.RUN_EPOCH])


@kernel
def look_for_next_frame(
    ring: Any, local: Any, taken: Any, n: int, port: int, is_read: bool, now: int
) -> None:
    """Note what one call brought from a port while a run is on trial.

    Parameters
    ----------
    taken   : (batch, 2) int64, of the n datagrams: slot of each, below 0 for none
    is_read : the port has been read to its end
    now     : monotonic time before that, in ns
    """
    is_settled = is_read and now - local[Local.JUDGED_FROM] >= GRACE_NS
    for i in range(n):
        slot = taken[i, 0]
        is_settled |= slot >= 0 and ring.slots[slot].sequence >= ring.words[Word.RUN_END]
    if is_settled:
        ring.sockets[port, SocketState.SETTLED] = ring.words[Word.RUN_EPOCH]


@kernel
def judge(ring: Any) -> None:
    """Say of a run that is over when nothing more will turn out; of images that come whole at once."""
    if not is_on_trial(ring):
        return
    words = ring.words
    epoch = words[Word.RUN_EPOCH]
    for port in range(ring.sockets.shape[0]):
        if ring.sockets[port, SocketState.SETTLED] != epoch:
            return
    store_release(words, Word.RUN_JUDGED, epoch)
    wake(words, Word.PUBLISHED)
