"""How much Python runs for a packet: bytecode instructions of the receiver, counted by the interpreter."""

from __future__ import annotations

import mmap
import os

from benchmarks import detectors
from benchmarks.figure import NOTHING, Effort, Figure, LostError
from benchmarks.receivers import OurReceiver
from benchmarks.traffic import Traffic

RECEIVING, OTHERS = 0, 1
COUNTED = """
import atexit, mmap, sys, threading
counts = memoryview(mmap.mmap(int(sys.argv[3]), 4096)).cast("q")

def count(frame, event, argument):
    frame.f_trace_opcodes = True
    if event == "opcode":
        counts[0 if threading.current_thread().name.startswith("receive") else 1] += 1
    return count

atexit.register(sys.settrace, None)
threading.settrace(count)
sys.settrace(count)
"""
"""Run before the receiver's program: ``count`` is called before each instruction of any thread."""


def per_packet(effort: Effort) -> list[Figure]:
    """Instructions of the thread that receives, from the first packet sent to the last image there."""
    config = detectors.jungfrau()
    memory = os.memfd_create("counts")
    os.ftruncate(memory, 4096)
    rate_hz = effort.packets_per_second / 4 / 128
    values, others = [], 0
    with (
        mmap.mmap(memory, 4096) as shared,
        memoryview(shared).cast("q") as counts,
        OurReceiver(config, before=COUNTED, descriptor=memory) as receiver,
        Traffic(config) as traffic,
    ):
        at_start = counts[RECEIVING]
        if not at_start:
            raise LostError("nothing was counted, not even the start of the receiving thread")
        for _ in range(effort.rounds):
            before, before_others = counts[RECEIVING], counts[OTHERS]
            received = receiver.receive(traffic, max(4, round(rate_hz * effort.seconds)), rate_hz)
            values.append((counts[RECEIVING] - before) / received.n_packets)
            others += counts[OTHERS] - before_others
    os.close(memory)
    note = f"{at_start} before the first packet; {others} of other threads meanwhile, a few a second"
    return [
        Figure("Python bytecode per packet", "", tuple(values), goal=NOTHING, unit="instructions", note=note)
    ]


BENCHMARKS = (per_packet,)
