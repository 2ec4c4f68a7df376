"""How far a process is with compiling, said over a socket; and whether it still gets on.

A first start on a machine compiles for a minute, on a slow or busy one for many; so nobody
gives up by the clock. Who waits gives up when the process and its helpers do nothing any more: they
have used no processor for ``IDLE_S``, or so much of it for one kernel that it must be in an endless loop.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from daq_core.amounts import counted

IDLE_S = 60.0  # longer than a swapped-out or stopped process is expected to stand still
MOST_CPU_S = 900.0  # for one step; a quiet machine needs less than 10 s for the longest
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

READY = b"!"
COMPILING = "compiling for this machine, which happens once"


@dataclass(frozen=True)
class Compiled:
    """So many kernels are there, of so many."""

    n_done: int
    n_kernels: int

    def to_bytes(self) -> bytes:
        return b"%d of %d" % (self.n_done, self.n_kernels)

    @classmethod
    def parse(cls, said: bytes) -> Compiled:
        done, _, kernels = said.partition(b" of ")
        return cls(int(done), int(kernels))

    def __str__(self) -> str:
        return f"{COMPILING}: {self.n_done} of {counted(self.n_kernels, 'kernel')}"


class Diligence:
    """Whether a process still works on what it is waited for."""

    def __init__(self, pid: int, idle_s: float = IDLE_S, most_cpu_s: float = MOST_CPU_S) -> None:
        self._pid = pid
        self._idle_s, self._most_cpu_s = idle_s, most_cpu_s
        self._cpu_s = self._cpu_at_step_s = cpu_time_s(pid)
        self._worked_at_s = time.monotonic()

    def step(self) -> None:
        """Note that it has said something: the next step begins."""
        self._cpu_at_step_s = cpu_time_s(self._pid)
        self._worked_at_s = time.monotonic()

    def is_lost(self) -> bool:
        """Look at it again; true when it stands still, or goes round in circles."""
        now_s, cpu_s = time.monotonic(), cpu_time_s(self._pid)
        if cpu_s > self._cpu_s:
            self._cpu_s, self._worked_at_s = cpu_s, now_s
        return now_s - self._worked_at_s > self._idle_s or cpu_s - self._cpu_at_step_s > self._most_cpu_s


def cpu_time_s(pid: int) -> float:
    """Return the processor time that a process and its children have used, in seconds; 0 when there is none.

    Source: proc(5), stat and children.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own_and_ended = sum(map(int, fields[11:15])) / TICKS_A_SECOND
    return own_and_ended + sum(cpu_time_s(int(child)) for child in children)
