"""How many threads receive, and on which CPUs: ``serve --receiver-threads`` and ``--receiver-cpus``."""

from __future__ import annotations

import os
from dataclasses import dataclass

CORES_A_THREAD = 4
"""Unless told otherwise: the others are for the kernel's share of each packet, compression and writing."""


@dataclass(frozen=True)
class ReceiveThreads:
    """Threads among which the UDP ports are shared out.

    wanted : how many; 0: one for each CORES_A_THREAD processors that this service may use
    cpus   : the processors each thread is kept on, in turn; none: any
    """

    wanted: int = 0
    cpus: tuple[int, ...] = ()

    def number(self) -> int:
        """Return how many threads there may be; no more than ports are started."""
        return self.wanted or len(self.cpus) or max(1, len(os.sched_getaffinity(0)) // CORES_A_THREAD)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Return the processors of a list as ``0,2,4-7``; ValueError says what is wrong with it."""
    cpus: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{part!r} is no CPU number and no range such as 4-7")
        cpus += range(int(first), int(last or first) + 1)
    usable = os.sched_getaffinity(0)
    if missing := sorted(set(cpus) - usable):
        raise ValueError(
            f"CPU {', '.join(map(str, missing))} cannot be used here; usable are "
            f"{', '.join(map(str, sorted(usable)))}"
        )
    return tuple(cpus)
