"""Who goes first when all cores are taken: what somebody waits for, until it is there.

The fork server, and a writer until its file is open, run at a better nice value where that is
allowed (CAP_SYS_NICE): a run begins at once also while receivers and compressors of
a streaming detector want the whole machine. Then the writer is like all others; a thread
that it has made meanwhile must say so for itself, for each has its own nice value.
"""

from __future__ import annotations

import os
from contextlib import suppress

NICE = -10

_usual = os.getpriority(os.PRIO_PROCESS, 0)  # of this process when it began; a forked one inherits it


def hurry() -> None:
    """Let this thread, and what it forks, go before others; does nothing where that is refused."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE, _usual))


def be_usual() -> None:
    """Let this thread be like all others again."""
    if os.getpriority(os.PRIO_PROCESS, 0) < _usual:
        os.setpriority(os.PRIO_PROCESS, 0, _usual)
