"""The control process goes before the data path: it needs a core seldom and shortly, and then at once.

While receiver, writer and compression take all cores, a caget or a REST call
waits for its turn, up to some 40 ms for a process like any other. So control asks for
the lowest real-time priority (SCHED_RR, 1), or at least for a better nice value;
both need CAP_SYS_NICE or a limit (RLIMIT_RTPRIO, RLIMIT_NICE). When refused it says
so and goes on.

A process that runs before all others must not run for long: one that has not
slept for ``MOST_S`` of CPU time gets SIGXCPU from the kernel (RLIMIT_RTTIME) and goes
back to normal, for good: it is overloaded or in an endless loop of ours, and the
data path is not to pay for it. Children and threads do not inherit any of this.
"""

from __future__ import annotations

import logging
import os
import resource
import signal

from ioc.values.machine import Precedence

log = logging.getLogger(__name__)

PRIORITY = 1
CONTROL_NICE = -10
MOST_S = 0.5


def take_precedence() -> Precedence:
    """Let this thread run before the data path, as far as this user may; return what was granted."""
    try:
        _limit_run_time()
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except PermissionError:
        pass
    else:
        log.info("control runs before the data path: SCHED_RR, priority %d", PRIORITY)
        return "real-time"
    try:
        os.setpriority(os.PRIO_PROCESS, 0, CONTROL_NICE)
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except PermissionError:
        log.warning(
            "control runs at normal priority: SCHED_RR and nice %d were refused, so answers may take some "
            "10 ms more while the data path is at its limit; `std-daq-ioc doctor` tells what grants them",
            CONTROL_NICE,
        )
        return "normal"
    log.info("control runs before the data path: nice %d (SCHED_RR was refused)", CONTROL_NICE)
    return "nice"


def present_precedence() -> Precedence:
    """Return what the main thread of this process has now."""
    me = os.getpid()
    if os.sched_getscheduler(me) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR:
        return "real-time"
    return "nice" if os.getpriority(os.PRIO_PROCESS, me) < 0 else "normal"


def _limit_run_time() -> None:
    """Have the kernel tell us when we ran for too long without a pause."""
    signal.signal(signal.SIGXCPU, _give_up)
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    soft = int(MOST_S * 1e6)  # microseconds
    resource.setrlimit(resource.RLIMIT_RTTIME, (soft if hard < 0 else min(soft, hard), hard))


def _give_up(signum: int, frame: object) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    log.warning(
        "control ran for %.1f s without a pause and goes back to normal priority until the next start", MOST_S
    )
