"""Compiled beginning and end of a run, as control orders them.

A run begins at once, and ends when what was in the sockets has been read, which is for
the loop to know (``daq_core.assembling.draining``). An image that was open at that moment goes
on collecting its packets, so that they do not open a second, broken one; but as soon as one
of them comes twice, after a pause, the detector has been armed again with the same numbers,
and the packet opens a new image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.arms import NOTHING_IN_FLIGHT
from daq_core.assembling.assembly import is_marked, last_open
from daq_core.assembling.doubts import NO_DOUBT, cancel, count_held, end_doubts
from daq_core.assembling.local import Local
from daq_core.assembling.publication import is_complete, publish
from daq_core.assembling.runs import follow_valve, is_taking
from daq_core.kernels.compiling import kernel, load_acquire, store_release, wake, yield_cpu
from daq_core.ring.ring import HELD, OPEN
from daq_core.ring.words import NO_END, Arm, SocketState, Word


@kernel
def is_ordered(ring: Any) -> bool:
    """Tell whether the control process has asked for something new."""
    words = ring.words
    return (
        load_acquire(words, Word.EPOCH) != words[Word.ACKNOWLEDGED]
        or load_acquire(words, Word.VALVE) != words[Word.VALVE_SEEN]
    )


@kernel
def take_orders(assembly: Any, layout: Any, erase: Any) -> int:
    """Begin a run when the control process has asked for it, and tell whether one is to end.

    Returns
    -------
    int  0, or the epoch of an end that was asked for: what is in the sockets by now belongs to the
         run, and has to be placed before :func:`end_run`. A run that has all its images ends here, and
         so does one whose writer is gone: nobody would write what is in the sockets.
    """
    ring = assembly.ring
    words = ring.words
    follow_valve(ring)
    epoch = load_acquire(words, Word.EPOCH)
    begun = epoch - (epoch + 1) % 2  # the last run that was asked for, be it over or not
    writer_done = load_acquire(words, Word.WRITER_DONE)
    if words[Word.ACKNOWLEDGED] < begun and writer_done < begun:
        _close_run(assembly, layout, erase)
        _begin_run(assembly.ring, assembly.local)
        words[Word.RUN_EPOCH] = begun
        _acknowledge(ring, begun)
    if words[Word.ACKNOWLEDGED] == epoch:
        return 0
    if is_taking(ring) and writer_done < words[Word.ACKNOWLEDGED]:
        return epoch
    _close_run(assembly, layout, erase)
    _acknowledge(ring, epoch)
    return 0


@kernel
def end_run(assembly: Any, layout: Any, erase: Any, epoch: int) -> None:
    """End the run, an answer of :func:`take_orders`, unless another thread has done so."""
    ring = assembly.ring
    if ring.words[Word.ACKNOWLEDGED] < epoch:
        _close_run(assembly, layout, erase)
        _acknowledge(ring, epoch)


@kernel
def _acknowledge(ring: Any, epoch: int) -> None:
    store_release(ring.words, Word.ACKNOWLEDGED, epoch)
    wake(ring.words, Word.PUBLISHED)


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
    _begin_arms(ring, local)
    local[Local.N_DROPS] = 0
    local[Local.JUDGED_FROM] = 0


@kernel
def _begin_arms(ring: Any, local: Any) -> None:
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
            count_held(ring, port, 0)
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
def _close_run(assembly: Any, layout: Any, erase: Any) -> None:
    """Keep every complete image: what waits before one is given up, what still arrives is left out."""
    ring, local = assembly.ring, assembly.local
    if not is_taking(ring):
        return
    end_doubts(ring, local)
    words = ring.words
    n_slots = ring.slots.shape[0]
    last = words[Word.OPENED] - 1
    while last >= words[Word.PUBLISHED] and not is_complete(assembly, last % n_slots):
        last -= 1
    while words[Word.PUBLISHED] <= last and is_taking(ring):
        publish(assembly, layout, erase)
    if is_taking(ring):
        store_release(words, Word.RUN_END, words[Word.PUBLISHED])
