"""Compiled publication: how open images become images of a run, or nobody's.

Images leave the window in the order in which they were opened; which of them a run keeps
follows from their sequence numbers alone (``daq_core.assembling.runs``). What is missing in
an image is zeroed here, and counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import is_marked, is_settled
from daq_core.assembling.doubts import judge
from daq_core.assembling.local import Local
from daq_core.assembling.runs import (
    count_in_run,
    floor,
    has_id_of_run,
    is_last_of_run,
    is_taking,
    passes_valve,
)
from daq_core.assembling.verdicts import was_convicted
from daq_core.kernels.compiling import kernel, store_release, wake, yield_cpu
from daq_core.ring.ring import COMPLETE, CUT, GOOD, HELD, INCOMPLETE, MISSING_PACKETS, OTHER_FORMAT, SKIPPED
from daq_core.ring.words import Word


@kernel
def is_complete(assembly: Any, slot: int) -> bool:
    """Tell whether nothing more is awaited for an image."""
    ring, local = assembly.ring, assembly.local
    return ring.slots[slot].n_received == local[Local.UNITS] or ring.slots[slot].state == SKIPPED


@kernel
def publish_ready(assembly: Any, layout: Any, erase: Any, now: int) -> None:
    """Publish, in order, what is complete or has waited too long."""
    ring, local = assembly.ring, assembly.local
    n_slots = ring.slots.shape[0]
    while ring.words[Word.PUBLISHED] < ring.words[Word.OPENED]:
        slot = ring.words[Word.PUBLISHED] % n_slots
        waited = now - ring.slots[slot].newest_ns
        if ring.slots[slot].state == HELD and not judge(ring, local, slot, waited >= local[Local.TIMEOUT_NS]):
            break
        if not is_complete(assembly, slot) and waited < local[Local.TIMEOUT_NS]:
            break
        if not is_settled(ring, slot):
            break  # another thread still copies; it comes here next
        publish(assembly, layout, erase)


@kernel
def give_up_oldest(assembly: Any, layout: Any, erase: Any) -> None:
    """Publish the oldest open image as it is, if one waits for its place in the window."""
    ring, local = assembly.ring, assembly.local
    if local[Local.WANTS_ROOM] != 0 and ring.words[Word.PUBLISHED] < ring.words[Word.OPENED]:
        local[Local.WANTS_ROOM] = 0
        slot = ring.words[Word.PUBLISHED] % ring.slots.shape[0]
        while ring.slots[slot].state == HELD and not judge(ring, local, slot, True):
            yield_cpu()
        publish(assembly, layout, erase)


@kernel
def publish(assembly: Any, layout: Any, erase: Any) -> None:
    """Finish the oldest open image and hand it on."""
    ring, local = assembly.ring, assembly.local
    words = ring.words
    n_slots = ring.slots.shape[0]
    sequence = words[Word.PUBLISHED]
    slot = sequence % n_slots
    image = ring.slots[slot]
    while not is_settled(ring, slot):
        yield_cpu()  # some microseconds: who copies does not need the gate to finish
    if image.unwanted == CUT and image.n_received == local[Local.UNITS]:
        image.unwanted = 0  # its packets only came in another order
    in_time = passes_valve(ring, sequence)
    of_run = is_taking(ring) and sequence >= words[Word.RUN_FIRST]
    by_valve = of_run and words[Word.BY_VALVE] != 0
    is_asked = has_id_of_run(ring, image.image_id)
    kept = of_run and (in_time or not by_valve) and is_asked
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
            image.n_missing = _erase_missing(assembly, slot, layout, erase)
            if image.status == GOOD:
                image.status = MISSING_PACKETS
            words[Word.INCOMPLETE_IMAGES] += 1
            words[Word.MISSING] += image.n_missing
        if kept and not image.unwanted:
            count_in_run(ring, local, slot)
    if image.unwanted or (by_valve and not in_time) or (of_run and not is_asked):
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
    is_last = of_run and is_last_of_run(ring, local, slot)
    if is_last or (kept and words[Word.RUN_KEPT] == words[Word.N_IMAGES]):
        words[Word.RUN_END] = sequence + 1
    store_release(words, Word.PUBLISHED, sequence + 1)
    if kept or is_last or in_use > n_slots // 4:  # a writer may have nothing but images to pass over
        wake(words, Word.PUBLISHED)


@kernel
def _erase_missing(assembly: Any, slot: int, layout: Any, erase: Any) -> int:
    """Zero the pixels that did not arrive, so that no old image shines through; return their packets."""
    ring, seen = assembly.ring, assembly.local[Local.UNITS_PER_PACKET]
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
        n_missing += -(-n_units // (seen if seen > 0 else layout[port].units_per_packet))
    return n_missing
