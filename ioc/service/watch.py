"""Looks at what this process and its machine use: once a second, in the event loop.

It looks in /proc (by psutil), at the control groups and at the clock alone: no disk is asked, so no
file system that hangs can delay it. What cannot be found out is None, and its PV undefined.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from daq_core.linux.memory import memory_groups, present_memory
from ioc.service.precedence import present_precedence
from ioc.values.machine import Usage

T = TypeVar("T")


class Watch:
    """Usage: ``watch = Watch()``, then ``watch.look()`` now and then, in any thread but one at a time."""

    def __init__(self) -> None:
        self._groups = memory_groups()
        self._has_looked = False
        self._process: tuple[float, float] | None = None  # seconds used, and when

    def look(self) -> Usage:
        """Return what is used now; of processors, how much since the look before."""
        memory = _known(lambda: present_memory(self._groups))
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return Usage(
            system_cpu_percent=_known(self._system_percent),
            ioc_cpu_percent=self._process_percent(),
            ioc_bytes=_known(lambda: int(psutil.Process().memory_info().rss)),
            free_bytes=None if memory is None else memory.free_bytes,
            total_bytes=None if memory is None else memory.limit_bytes,
            n_descriptors=_known(lambda: int(psutil.Process().num_fds()) - 1),  # one is the look itself
            max_descriptors=None if soft_limit == resource.RLIM_INFINITY else soft_limit,
            parent_id=os.getppid(),
            precedence=present_precedence(),
        )

    def _system_percent(self) -> float | None:
        percent, has_looked = float(psutil.cpu_percent()), self._has_looked
        self._has_looked = True
        return percent if has_looked else None  # of the first it is not known since when

    def _process_percent(self) -> float | None:
        now = (time.process_time(), time.monotonic())
        before, self._process = self._process, now
        if before is None or now[1] <= before[1]:
            return None
        return 100 * (now[0] - before[0]) / (now[1] - before[1])


def _known(look: Callable[[], T]) -> T | None:
    """Return what a look finds; None where /proc has nothing to see, or not in the form that is known."""
    try:
        return look()
    except (OSError, ValueError, LookupError, TypeError, psutil.Error):
        return None
