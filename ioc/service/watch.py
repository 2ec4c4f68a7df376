"""Looks at what this process and its machine use: once a second, in the event loop.

It looks in /proc, at the control groups and at the clock alone: no disk is asked, so no file
system that hangs can delay it. What cannot be found out is None, and its PV undefined.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from daq_core.linux.memory import memory_groups, present_memory
from ioc.service.precedence import present_precedence
from ioc.values.machine import Usage

T = TypeVar("T")

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
IDLE, IO_WAIT, STEAL = 3, 4, 7  # columns of the line "cpu" in /proc/stat, see proc(5)


class Watch:
    """Usage: ``watch = Watch()``, then ``watch.look()`` now and then, in any thread but one at a time."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._groups = memory_groups(proc)
        self._system: tuple[int, int] | None = None  # busy and all ticks at the look before
        self._process: tuple[float, float] | None = None  # seconds used, and when

    def look(self) -> Usage:
        """Return what is used now; of processors, how much since the look before."""
        memory = _known(lambda: present_memory(self._proc, self._groups))
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return Usage(
            system_cpu_percent=_known(self._system_percent),
            ioc_cpu_percent=self._process_percent(),
            ioc_bytes=_known(self._resident_bytes),
            free_bytes=None if memory is None else memory.free_bytes,
            total_bytes=None if memory is None else memory.limit_bytes,
            n_descriptors=_known(self._n_descriptors),
            max_descriptors=None if soft_limit == resource.RLIM_INFINITY else soft_limit,
            parent_id=os.getppid(),
            precedence=present_precedence(),
        )

    def _system_percent(self) -> float | None:
        with (self._proc / "stat").open(encoding="ascii") as lines:
            ticks = [int(word) for word in lines.readline().split()[1 : STEAL + 2]]
        now = sum(ticks) - ticks[IDLE] - ticks[IO_WAIT], sum(ticks)
        before, self._system = self._system, now
        if before is None or now[1] <= before[1]:
            return None
        return min(100.0, max(0.0, 100 * (now[0] - before[0]) / (now[1] - before[1])))

    def _process_percent(self) -> float | None:
        now = (time.process_time(), time.monotonic())
        before, self._process = self._process, now
        if before is None or now[1] <= before[1]:
            return None
        return 100 * (now[0] - before[0]) / (now[1] - before[1])

    def _resident_bytes(self) -> int:
        return PAGE_BYTES * int((self._proc / "self/statm").read_text(encoding="ascii").split()[1])

    def _n_descriptors(self) -> int:
        return len(os.listdir(self._proc / "self/fd")) - 1  # one of them is the look itself


def _known(look: Callable[[], T]) -> T | None:
    """Return what a look finds; None where /proc has nothing to see, or not in the form that is known."""
    try:
        return look()
    except (OSError, ValueError, LookupError):
        return None
