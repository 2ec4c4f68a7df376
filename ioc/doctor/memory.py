"""Whether the image ring of a config fits into this machine, and into what the service may have of it."""

from __future__ import annotations

from pathlib import Path

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.pipeline import free_memory
from daq_core.ring import choose_n_slots
from ioc.doctor.finding import Finding, Findings

FEW_IMAGES = 64
GIB = 2**30


def look_at_memory(config: DaqConfig) -> Findings:
    yield _ring(config, free_memory())


def _ring(config: DaqConfig, free_bytes: int) -> Finding:
    limit = cgroup_limit()
    if limit is not None:
        free_bytes = min(free_bytes, limit)
    layout = layout_of(config)
    n_slots = choose_n_slots(
        layout.room_bytes,
        config.ram_buffer_gb,
        free_bytes,
        n_modules=len(layout.modules),
        n_units=layout.n_units,
    )
    size = layout.ring_shape(n_slots).total_bytes
    text = f"ring of {n_slots} images, {size / GIB:.2f} GiB of {free_bytes / GIB:.1f} GiB free"
    if limit is not None and limit == free_bytes:
        text += " (limit of the control group)"
    if size > free_bytes:
        fitting = free_bytes / 2 / GIB
        return Finding("memory", "problem", text, _set(fitting))
    if n_slots < FEW_IMAGES and size < free_bytes / 4:
        fitting = min(free_bytes / 4, FEW_IMAGES * size / n_slots) / GIB
        return Finding(
            "memory",
            "limits",
            f"{text}: a pause of the disk is soon too long",
            _set(fitting),
        )
    if size > free_bytes / 2:
        return Finding(
            "memory",
            "limits",
            f"{text}: little is left for the page cache, which the writer needs",
            _set(free_bytes / 2 / GIB),
        )
    return Finding("memory", "good", text)


def _set(size_gb: float) -> str:
    return f"std-daq-ioc config ram_buffer_gb={size_gb:.2g}   # or in the config file"


def cgroup_limit(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes this process may still have by its control groups (v2); None without a limit."""
    try:
        path = next(line[3:].strip() for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    left = []
    here = root / path.lstrip("/")
    for group in (here, *here.parents):
        if not group.is_relative_to(root):
            break
        try:
            most = (group / "memory.max").read_text().strip()
            used = int((group / "memory.current").read_text())
        except OSError:
            continue
        if most != "max":
            left.append(max(0, int(most) - used))
    return min(left, default=None)
