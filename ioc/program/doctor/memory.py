"""Whether the image ring of a config fits into this machine, and into what the service may have of it."""

from __future__ import annotations

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.linux.memory import Memory, present_memory, shown_bytes
from daq_core.pipeline.ring_size import choose_ring
from ioc.program.doctor.finding import Finding, Findings

FEW_IMAGES = 64
GIB = 2**30


def look_at_memory(config: DaqConfig) -> Findings:
    yield room_for_ring(config, present_memory())


def room_for_ring(config: DaqConfig, memory: Memory) -> Finding:
    """Judge whether the ring fits into a memory, and leaves enough of it."""
    try:
        shape = choose_ring(config, memory)
    except Unavailable as refused:
        fitting = max(0, memory.free_bytes - memory.reserve_bytes) / GIB
        return Finding("memory", "problem", str(refused), _set(fitting))
    size, n_slots = shape.total_bytes, shape.n_slots
    text = f"ring of {n_slots} images, {shown_bytes(size)} of {memory}"
    if n_slots < FEW_IMAGES and size < memory.free_bytes / 4:
        fitting = min(memory.free_bytes / 4, FEW_IMAGES * size / n_slots) / GIB
        return Finding(
            "memory",
            "limits",
            f"{text}: a pause of the disk is soon too long",
            _set(fitting),
        )
    if size > memory.free_bytes / 2:
        return Finding(
            "memory",
            "limits",
            f"{text}: little is left for the page cache, which the writer needs",
            _set(memory.free_bytes / 2 / GIB),
        )
    return Finding("memory", "good", text)


def _set(size_gb: float) -> str:
    return f"std-daq-ioc config ram_buffer_gb={size_gb:.2g}   # or in the config file"
