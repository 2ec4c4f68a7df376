"""Pages for the image ring before the pixels come: a first pass over fresh memory is two to ten times slower.

The ring's records and its first slots get theirs before the receiver listens;
the rest follows in a thread of its own while it receives already, for a
gigabyte takes 0.3 to 3 s and a service with a large ring would be long in
coming. Slots are filled in their order, so the thread is ahead of the images
unless they come faster than memory can be had at all.

What has its pages is made huge pages of (MADV_COLLAPSE), whatever the machine's
settings say: a writer is a new process, and would map the small ones one by one for each
run. Where there are none to be had, the small ones stay.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.linux.libc import libc
from daq_core.linux.mapping import HUGE_BYTES
from daq_core.ring.ring import Ring

log = logging.getLogger(__name__)

FIRST_BYTES = 16 * 2**20  # of pixels: what a detector sends at 4 GB/s until the thread runs, and more
STEP_BYTES = 16 * 2**20  # a hundredth of a second
PAGE_BYTES = 4096

MADV_POPULATE_WRITE = 23  # since Linux 5.14
_MADV_COLLAPSE = 25  # since Linux 6.1


def prefault(ring: Ring) -> threading.Thread:
    """Give the ring's records and first slots their pages; returns a thread, to be started, for the rest."""
    for records in (ring.words, ring.module_packets, ring.slots, ring.marks, ring.placed, ring.arms):
        populate(records)
    n_first = min(len(ring.pixels), -(-FIRST_BYTES // ring.pixels.shape[1]))
    populate(ring.pixels[:n_first])
    collapse(ring.pixels[:n_first])
    return threading.Thread(
        target=_populate_rest, args=(ring.pixels[n_first:],), name="prefault", daemon=True
    )


def _populate_rest(pixels: npt.NDArray[np.uint8]) -> None:
    """Give (slots, slot bytes) their pages in steps, so that other work on this memory gets its turn."""
    n_slots = max(1, STEP_BYTES // pixels.shape[1])
    for first in range(0, len(pixels), n_slots):
        populate(pixels[first : first + n_slots])
        collapse(pixels[first : first + n_slots])


def populate(memory: npt.NDArray[Any]) -> None:
    """Touch every page of a contiguous part of a ring, without changing what is in it; without the GIL."""
    address, length = ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes)
    if memory.nbytes and libc.madvise(address, length, ctypes.c_int(MADV_POPULATE_WRITE)) < 0:
        # An older kernel. Reading is enough for shared memory to get its pages, and no race with a writer.
        memory.view(np.uint8).reshape(-1)[::PAGE_BYTES].max()


def collapse(memory: npt.NDArray[Any]) -> None:
    """Make huge pages of those that a part of a ring has, from the one it begins in; without the GIL."""
    start = memory.ctypes.data // HUGE_BYTES * HUGE_BYTES
    length = (memory.ctypes.data + memory.nbytes - start) // HUGE_BYTES * HUGE_BYTES
    if length:  # refused: by an older kernel, or for want of memory
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(_MADV_COLLAPSE))
