"""Compiled rules of runs: which images one takes, and what is counted of them.

A run takes the images that are opened after the receiver took up its epoch, until its
sockets are read when it is to end (``daq_core.assembling.draining``). One by valve takes
those alone that the valve lets through (``daq_core.pipeline.valve``). How a run begins and
ends is in ``daq_core.assembling.orders``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.local import Local
from daq_core.kernels.compiling import kernel, load_acquire, store_release
from daq_core.ring.ring import ID_MISMATCH, INCOMPLETE, SKIPPED
from daq_core.ring.words import NO_END, WRITER_WORDS, Word


@kernel
def is_taking(ring: Any) -> bool:
    """Tell whether a run is armed and still wants images."""
    return ring.words[Word.ACKNOWLEDGED] % 2 == 1 and ring.words[Word.RUN_END] == NO_END


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
def lets_through(ring: Any) -> bool:
    """Tell whether the valve (``daq_core.pipeline.valve``) lets through the images that come now."""
    words = ring.words
    n_images = words[Word.VALVE_IMAGES]
    return words[Word.VALVE_END] == NO_END and (n_images == 0 or words[Word.PASSED] < n_images)


@kernel
def follow_valve(ring: Any) -> None:
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
def passes_valve(ring: Any, sequence: int) -> bool:
    """Tell whether the valve lets an image through that leaves the window now."""
    words = ring.words
    n_images = words[Word.VALVE_IMAGES]
    enough = n_images > 0 and words[Word.PASSED] >= n_images
    return words[Word.VALVE_FIRST] <= sequence < words[Word.VALVE_END] and not enough


@kernel
def has_id_of_run(ring: Any, image_id: Any) -> bool:
    """Tell whether the armed run was asked to have images with this id."""
    first, behind = np.uint64(ring.words[Word.START_ID]), np.uint64(ring.words[Word.BEHIND_ID])
    return bool(image_id >= first and (behind == np.uint64(0) or image_id < behind))


@kernel
def is_last_of_run(ring: Any, local: Any, slot: int) -> bool:
    """Tell whether an image ends the run by its id; one that lacks packets may be anything."""
    behind = np.uint64(ring.words[Word.BEHIND_ID])
    image = ring.slots[slot]
    is_behind = behind != np.uint64(0) and image.image_id >= behind - np.uint64(1)
    return bool(is_behind and image.n_received == local[Local.UNITS])


@kernel
def count_in_run(ring: Any, local: Any, slot: int) -> None:
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
