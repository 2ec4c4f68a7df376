"""Work that is shared out to forked processes, task by task; none of them outlives it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator

from daq_core.linux.libc import end_with


def share_out(n_tasks: int, n_helpers: int, do: Callable[[int], object]) -> Iterator[int]:
    """Do tasks 0, 1, … here and in forked helpers, each by whoever is free; yields how many are done.

    A helper that dies leaves its task undone, and no other.

    Parameters
    ----------
    n_tasks : int  255 at most
    n_helpers : int  forked for this; 0: all is done here
    do : Callable  given the number of a task; what it leaves in memory is gone with a helper
    """
    tasks, done = os.pipe(), os.pipe()
    os.write(tasks[1], bytes(range(n_tasks)))
    os.close(tasks[1])
    helpers = [_fork_helper(tasks[0], done[1], do) for _ in range(min(n_helpers, n_tasks - 1))]
    os.close(done[1])
    n_done = 0
    try:
        while task := os.read(tasks[0], 1):
            do(task[0])
            n_done += 1
            if select.select([done[0]], [], [], 0)[0]:
                n_done += len(os.read(done[0], n_tasks))
            yield n_done
        while finished := os.read(done[0], n_tasks):
            n_done += len(finished)
            yield n_done
    finally:
        os.close(tasks[0])
        os.close(done[0])
        for helper in helpers:
            os.kill(helper, signal.SIGKILL)  # it has ended, or this process was interrupted
            os.waitpid(helper, 0)


def _fork_helper(tasks: int, done: int, do: Callable[[int], object]) -> int:
    """Fork a process that does tasks as long as there are some, and ends with this one; returns its pid."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    try:
        while end_with(parent) and (task := os.read(tasks, 1)):
            do(task[0])
            os.write(done, b".")
    finally:
        os._exit(
            0
        )  # nothing of the process that it was forked from is its to finish; that tries anew and says why
