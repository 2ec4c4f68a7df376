"""CPU time of any process, and the clock that all of them share."""

from __future__ import annotations

import os
import time

CPUCLOCK_SCHED = 2
"""Source: linux/include/linux/posix-timers.h (MAKE_PROCESS_CPUCLOCK): the pid's complement, and the kind."""


def process_cpu(pid: int | None = None) -> float:
    """Return the CPU seconds of all threads of a process; ProcessLookupError when there is none."""
    try:
        return time.clock_gettime((~(pid or os.getpid()) << 3) | CPUCLOCK_SCHED)
    except OSError:
        raise ProcessLookupError(f"process {pid} has ended") from None


def wall() -> float:
    """Return CLOCK_MONOTONIC in seconds, the same in all processes."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def use_two_cores() -> int:
    """Keep this process and all it starts on (at most) two cores; return how many they are."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    return len(cores)
