"""Compiled publication: how open images become images of a run, or nobody's.

Images leave the window in the order in which they were opened; which of them a
run keeps follows from their sequence numbers alone (see ``daq_core.assembling.assembly``,
whose loop calls this). What is missing in an image is zeroed here, and counted.
A run begins at once, and ends when what was in the sockets has been read, which
is for the loop to know (``daq_core.assembling.draining``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import begin_arms, end_doubts, judge
from daq_core.assembling.assembly import Local, floor, is_marked, is_settled, is_taking
from daq_core.assembling.verdicts import was_convicted
from daq_core.kernels.compiling import kernel, load_acquire, store_release, wake, yield_cpu
from daq_core.ring.ring import (
    COMPLETE,
    CUT,
    GOOD,
    HELD,
    ID_MISMATCH,
    INCOMPLETE,
    MISSING_PACKETS,
    NO_END,
    OTHER_FORMAT,
    SKIPPED,
    SocketState,
    Word,
)


@kernel
def is_ordered(ring: Any) -> bool:
    """Tell whether the control process has asked for something new."""
    words = ring.words
    return (
        load_acquire(words, Word.EPOCH) != words[Word.ACKNOWLEDGED]
        or load_acquire(words, Word.VALVE) != words[Word.VALVE_SEEN]
    )


@kernel
def take_orders(ring: Any, local: Any, layout: Any, erase: Any) -> int:
    """Begin a run when the control process has asked for it, and tell whether one is to end.

    Returns
    -------
    int  0, or the epoch of an end that was asked for: what is in the sockets by now belongs to the
         run, and has to be placed before :func:`end_run`. A run that has all its images ends here, and
         so does one whose writer is gone: nobody would write what is in the sockets.
    """
    words = ring.words
    _follow_valve(ring)
    epoch = load_acquire(words, Word.EPOCH)
    begun = epoch - (epoch + 1) % 2  # the last run that was asked for, be it over or not
    writer_done = load_acquire(words, Word.WRITER_DONE)
    if words[Word.ACKNOWLEDGED] < begun and writer_done < begun:
        _close_run(ring, local, layout, erase)
        _begin_run(ring, local)
        words[Word.RUN_EPOCH] = begun
        _acknowledge(ring, begun)
    if words[Word.ACKNOWLEDGED] == epoch:
        return 0
    if is_taking(ring) and writer_done < words[Word.ACKNOWLEDGED]:
        return epoch
    _close_run(ring, local, layout, erase)
    _acknowledge(ring, epoch)
    return 0


@kernel
def end_run(ring: Any, local: Any, layout: Any, erase: Any, epoch: int) -> None:
    """End the run, an answer of :func:`take_orders`, unless another thread has done so."""
    if ring.words[Word.ACKNOWLEDGED] < epoch:
        _close_run(ring, local, layout, erase)
        _acknowledge(ring, epoch)


@kernel
def _acknowledge(ring: Any, epoch: int) -> None:
    store_release(ring.words, Word.ACKNOWLEDGED, epoch)
    wake(ring.words, Word.PUBLISHED)


@kernel
def _follow_valve(ring: Any) -> None:
    """Take up that the valve was opened or closed: it is for images that are begun between the two."""
    words = ring.words
    valve = load_acquire(words, Word.VALVE)
    if valve == words[Word.VALVE_SEEN]:
        return
    if valve % 2 == 1:
        words[Word.VALVE_FIRST] = words[Word.OPENED]
        words[Word.VALVE_END] = NO_END
        words[Word.PASSED] = 0
    else:
        words[Word.VALVE_END] = min(words[Word.VALVE_END], words[Word.OPENED])
    store_release(words, Word.VALVE_SEEN, valve)


@kernel
def _begin_run(ring: Any, local: Any) -> None:
    words = ring.words
    for word in (
        Word.RUN_KEPT,
        Word.RUN_DROPPED,
        Word.RUN_INCOMPLETE,
        Word.RUN_MISSING,
        Word.RUN_MISMATCHED,
        Word.RUN_SPARSE,
        Word.RUN_OTHER_FORMAT,
        Word.RUN_NOT_GOOD,
        Word.RUN_FORGOTTEN,
        Word.RUN_HIGH_WATER,
    ):
        words[word] = 0
    for module in range(ring.module_packets.shape[0]):
        ring.module_packets[module] = 0
    for port in range(ring.sockets.shape[0]):
        for column in range(SocketState.ODD_HEADERS, SocketState.ODD_NUMBER + 1):
            ring.sockets[port, column] = 0
    words[Word.RUN_FIRST] = words[Word.OPENED]
    words[Word.RUN_END] = NO_END
    begin_arms(ring, local)
    local[Local.N_DROPS] = 0
    local[Local.JUDGED_FROM] = 0


@kernel
def _close_run(ring: Any, local: Any, layout: Any, erase: Any) -> None:
    """Keep every complete image: what waits before one is given up, what still arrives is left out."""
    if not is_taking(ring):
        return
    end_doubts(ring, local)
    words = ring.words
    n_slots = ring.slots.shape[0]
    last = words[Word.OPENED] - 1
    while last >= words[Word.PUBLISHED] and not _is_complete(ring, local, last % n_slots):
        last -= 1
    while words[Word.PUBLISHED] <= last and is_taking(ring):
        _publish(ring, local, layout, erase)
    if is_taking(ring):
        store_release(words, Word.RUN_END, words[Word.PUBLISHED])


@kernel
def _is_complete(ring: Any, local: Any, slot: int) -> bool:
    return ring.slots[slot].n_received == local[Local.UNITS] or ring.slots[slot].state == SKIPPED


@kernel
def publish_ready(ring: Any, local: Any, layout: Any, erase: Any, now: int) -> None:
    """Publish, in order, what is complete or has waited too long."""
    n_slots = ring.slots.shape[0]
    while ring.words[Word.PUBLISHED] < ring.words[Word.OPENED]:
        slot = ring.words[Word.PUBLISHED] % n_slots
        waited = now - ring.slots[slot].newest_ns
        if ring.slots[slot].state == HELD and not judge(ring, local, slot, waited >= local[Local.TIMEOUT_NS]):
            break
        if not _is_complete(ring, local, slot) and waited < local[Local.TIMEOUT_NS]:
            break
        if not is_settled(ring, slot):
            break  # another thread still copies; it comes here next
        _publish(ring, local, layout, erase)


@kernel
def give_up_oldest(ring: Any, local: Any, layout: Any, erase: Any) -> None:
    """Publish the oldest open image as it is, if one waits for its place in the window."""
    if local[Local.WANTS_ROOM] != 0 and ring.words[Word.PUBLISHED] < ring.words[Word.OPENED]:
        local[Local.WANTS_ROOM] = 0
        slot = ring.words[Word.PUBLISHED] % ring.slots.shape[0]
        while ring.slots[slot].state == HELD and not judge(ring, local, slot, True):
            yield_cpu()
        _publish(ring, local, layout, erase)


@kernel
def _publish(ring: Any, local: Any, layout: Any, erase: Any) -> None:
    """Finish the oldest open image and hand it on."""
    words = ring.words
    n_slots = ring.slots.shape[0]
    sequence = words[Word.PUBLISHED]
    slot = sequence % n_slots
    image = ring.slots[slot]
    while not is_settled(ring, slot):
        yield_cpu()  # some microseconds: who copies does not need the gate to finish
    if image.unwanted == CUT and image.n_received == local[Local.UNITS]:
        image.unwanted = 0  # its packets only came in another order
    in_time = _passes_valve(ring, sequence)
    of_run = is_taking(ring) and sequence >= words[Word.RUN_FIRST]
    by_valve = of_run and words[Word.BY_VALVE] != 0
    kept = of_run and (in_time or not by_valve)
    passes = in_time and image.state != SKIPPED and not image.unwanted
    if image.state != SKIPPED:
        words[Word.IMAGES_PUBLISHED] += 1
        words[Word.LAST_IMAGE_ID] = np.int64(image.image_id)
        if local[Local.N_EARLY] > 0 and was_convicted(local, image):
            image.status = OTHER_FORMAT
        if image.n_received == local[Local.UNITS]:
            image.state = COMPLETE
        else:
            image.state = INCOMPLETE
            image.n_missing = _erase_missing(ring, slot, layout, erase)
            if image.status == GOOD:
                image.status = MISSING_PACKETS
            words[Word.INCOMPLETE_IMAGES] += 1
            words[Word.MISSING] += image.n_missing
        if kept and not image.unwanted:
            _count_in_run(ring, local, slot)
    if image.unwanted or (by_valve and not in_time):
        image.state = SKIPPED
    kept = kept and image.state != SKIPPED
    if kept:
        words[Word.RUN_KEPT] += 1
        words[Word.RUN_NOT_GOOD] += image.status != GOOD
        words[Word.RUN_OTHER_FORMAT] += image.status == OTHER_FORMAT
        local[Local.JUDGED_FROM] = max(local[Local.JUDGED_FROM], image.newest_ns)
    if passes and (kept or not by_valve):
        words[Word.PASSED_ID] = np.int64(image.image_id)
        words[Word.PASSED_NS] = image.first_ns
        store_release(words, Word.PASSED, words[Word.PASSED] + 1)
    in_use = words[Word.OPENED] - floor(ring, local)
    words[Word.RUN_HIGH_WATER] = max(words[Word.RUN_HIGH_WATER], in_use)
    if kept and words[Word.RUN_KEPT] == words[Word.N_IMAGES]:
        words[Word.RUN_END] = sequence + 1
    store_release(words, Word.PUBLISHED, sequence + 1)
    if kept or in_use > n_slots // 4:  # a writer may have nothing but images to pass over
        wake(words, Word.PUBLISHED)


@kernel
def _passes_valve(ring: Any, sequence: int) -> bool:
    """Tell whether the valve lets an image through that leaves the window now."""
    words = ring.words
    n_images = words[Word.VALVE_IMAGES]
    enough = n_images > 0 and words[Word.PASSED] >= n_images
    return words[Word.VALVE_FIRST] <= sequence < words[Word.VALVE_END] and not enough


@kernel
def _count_in_run(ring: Any, local: Any, slot: int) -> None:
    words = ring.words
    image = ring.slots[slot]
    if image.status == ID_MISMATCH:
        words[Word.RUN_MISMATCHED] += 1
    if image.state == INCOMPLETE:
        words[Word.RUN_INCOMPLETE] += 1
        if local[Local.DROP_INCOMPLETE]:
            image.state = SKIPPED
            words[Word.RUN_DROPPED] += 1
            words[Word.DROPPED_IMAGES] += 1
        else:
            words[Word.RUN_MISSING] += image.n_missing
            words[Word.RUN_SPARSE] += 2 * image.n_received < local[Local.UNITS]


@kernel
def _erase_missing(ring: Any, slot: int, layout: Any, erase: Any) -> int:
    """Zero the pixels that did not arrive, so that no old image shines through; return their packets."""
    n_missing = 0
    covered = 0
    for port in range(layout.shape[0]):
        first = layout[port].first_unit
        if first < covered:
            continue  # its images are another port's in turn
        covered = first + layout[port].n_units
        n_units = 0
        for unit in range(layout[port].n_units):
            if not is_marked(ring, slot, first + unit):
                erase(layout, port, unit, ring.pixels[slot])
                n_units += 1
        n_missing += -(-n_units // layout[port].units_per_packet)
    return n_missing
