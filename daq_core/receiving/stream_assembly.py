"""Compiled bookkeeping of images that come whole, each as one packet is in ``assembling.assembly``."""

from __future__ import annotations

from typing import Any

from numba import types

from daq_core.assembling.arms import begin_reading, forget, note_batch
from daq_core.assembling.claims import claim
from daq_core.assembling.doubts import NO_DOUBT, cancel
from daq_core.assembling.orders import end_run, take_orders
from daq_core.assembling.publication import publish_ready
from daq_core.assembling.signatures import ASSEMBLY_TYPE, ERASE, LAYOUT_TYPE, Clock, Packet
from daq_core.assembling.verdicts import judge
from daq_core.kernels.compiling import kernel_of, store_release
from daq_core.ring.ring import FREE
from daq_core.ring.words import Arm, Word


@kernel_of(ERASE)
def nothing_to_erase(layout: Any, port: int, unit: int, pixels: Any) -> None:
    """Erase what is missing of an image: of one that came whole, nothing."""


@kernel_of(types.int64(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE, types.int64))
def turn(erase: Any, layout: Any, assembly: Any, now: int) -> int:
    """Begin a run when told to, and show that the loop is alive; returns the epoch of an end, or 0."""
    ring = assembly.ring
    ring.words[Word.HEARTBEAT] = now
    begin_reading(ring.arms, 0, now)
    epoch = take_orders(assembly, layout, erase)
    judge(ring)
    return epoch


@kernel_of(types.void(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE, types.int64))
def end(erase: Any, layout: Any, assembly: Any, epoch: int) -> None:
    """End the run."""
    end_run(assembly, layout, erase, epoch)
    judge(assembly.ring)


@kernel_of(types.int64(ASSEMBLY_TYPE, types.uint64, types.int64, types.int64))
def open_image(assembly: Any, image_id: Any, now: int, real: int) -> int:
    """Return the slot for an image, or below 0 that there is none, which is counted."""
    note_batch(assembly.ring.arms, 0, 1, 1, now)
    return claim(assembly, Packet(0, image_id, image_id, 0, 1), -1, Clock(now, real))


@kernel_of(
    types.void(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE, types.int64, types.boolean, types.int64)
)
def publish(erase: Any, layout: Any, assembly: Any, slot: int, is_good: bool, now: int) -> None:
    """Publish the image in a slot; one whose data turned out to be damaged was never opened."""
    ring, local = assembly.ring, assembly.local
    if is_good:
        ring.words[Word.PLACED] += 1
        ring.module_packets[0] += 1
        ring.placed[slot] = 1
    else:
        ring.words[Word.MALFORMED] += 1
        ring.slots[slot].state = FREE
        forget(local, ring.slots[slot].arm, ring.slots[slot].frame)
        store_release(ring.words, Word.OPENED, ring.words[Word.OPENED] - 1)
        if ring.arms[0, Arm.DOUBT] != NO_DOUBT:
            cancel(ring, local, 0)
    publish_ready(assembly, layout, erase, now)
    judge(ring)
