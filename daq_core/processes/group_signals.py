"""What a terminal or a supervisor sends to all processes at once, and that control alone answers.

A terminal that closes, ``kill -- -GROUP``, a service manager that signals a whole
group: if receiver, writer or fork server answered these, a run would be lost before control could
close its file. They end when control says so, or is gone. SIGKILL they cannot ignore, SIGCONT they need not,
and those of their own faults (SIGSEGV and its like, SIGXCPU) are left as they are. SIGABRT is not: a service
manager's watchdog sends it, and abort(3) ends a process all the same.
"""

from __future__ import annotations

import signal

SENT_TO_ALL = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


def leave_to_control() -> None:
    """Ignore them in this process, and in those that it forks."""
    for signum in SENT_TO_ALL:
        signal.signal(signum, signal.SIG_IGN)
