"""The catalogue of faults, and those of the service's processes; ``surrounding_faults`` has the others.

Each fault is over when its function returns. It may be called at any moment of a
run; a process that is not there at that moment is left alone, and the fault does not
count.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daq_core.processes.group_signals import SENT_TO_ALL
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import standing_still
from tests.torture.session import Session

Inject = Callable[[Session, random.Random], bool]

SYS_PIDFD_GETFD = 438
SHORT_HOLDS_S = (0.05, 0.3, 1.0, 2.0)
REDIS_BACK_S = 30.0


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    inject: Inject  # whether it could be done
    loses_receiver: bool = False  # what is in its sockets is gone, and what comes until it is back
    loses_service: bool = False  # control was killed; the run is found again at the next start
    loses_redis: bool = False  # entries of its streams are gone, or come twice
    on_small_disk: bool = False
    before_start: bool = False  # the writer is born with it
    weight: int = 4


FAULTS: list[Fault] = []


def fault(name: str, **about: bool | int) -> Callable[[Inject], Inject]:
    """Add a fault to the catalogue."""

    def add(inject: Inject) -> Inject:
        FAULTS.append(Fault(name, inject, **about))  # type: ignore[arg-type]  # bools and a weight
        return inject

    return add


# ------------------------------------------------------------------ killed


def kill(session: Session, name: str, dice: random.Random | None = None) -> bool:
    pid = session.pid(name, dice)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@fault("kill receiver", loses_receiver=True)
def kill_receiver(session: Session, dice: random.Random) -> bool:
    return kill(session, "daq-receiver")


@fault("kill receiver twice", loses_receiver=True, weight=1)
def kill_receiver_twice(session: Session, dice: random.Random) -> bool:
    killed = kill(session, "daq-receiver")
    time.sleep(dice.uniform(0.0, 1.0))
    return kill(session, "daq-receiver") or killed


@fault("kill writer")
def kill_writer(session: Session, dice: random.Random) -> bool:
    return kill(session, "daq-writer", dice)


@fault("kill receiver and writer", loses_receiver=True, weight=2)
def kill_both(session: Session, dice: random.Random) -> bool:
    return kill(session, "daq-receiver") | kill(session, "daq-writer", dice)


@fault("kill fork server", weight=2)
def kill_fork_server(session: Session, dice: random.Random) -> bool:
    return kill(session, "daq-forks")


@fault("kill control", loses_service=True, loses_receiver=True, loses_redis=True, weight=2)
def kill_control(session: Session, dice: random.Random) -> bool:
    session.service.end(signal.SIGKILL)
    time.sleep(dice.choice((0.0, 0.0, 1.0)))
    session.restart()
    return True


@fault("end control in order", loses_service=True, loses_receiver=True, loses_redis=True, weight=1)
def terminate_control(session: Session, dice: random.Random) -> bool:
    """SIGTERM: it closes the file first."""
    session.service.end(signal.SIGTERM)
    session.restart()
    return True


@fault("terminal closes", loses_service=True, loses_receiver=True, loses_redis=True, weight=1)
def hang_up(session: Session, dice: random.Random) -> bool:
    """SIGHUP to control, or to all processes: it closes the file first."""
    names = ("daq-receiver", "daq-writer", "daq-forks", "redis") if dice.random() < 0.5 else ()
    for pid in filter(None, map(session.pid, names)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    code = session.service.end(signal.SIGHUP)
    assert code == 0, f"exit code {code} after SIGHUP"
    session.restart()
    return True


@fault("signals to all other processes", weight=3)
def signal_others(session: Session, dice: random.Random) -> bool:
    """What supervisors and terminals send to a whole group; control alone answers it."""
    pids = list(filter(None, map(session.pid, ("daq-receiver", "daq-writer", "daq-forks", "redis"))))
    for signum in dice.sample(SENT_TO_ALL, 8):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
    return bool(pids)


# ------------------------------------------------------------------ stopped, starved


def hold(name: str) -> Inject:
    def inject(session: Session, dice: random.Random) -> bool:
        pid = session.pid(name, dice)
        if pid is None:
            return False
        with standing_still([pid]):
            time.sleep(dice.choice(SHORT_HOLDS_S))
        return True

    return inject


fault("stop receiver")(hold("daq-receiver"))
fault("stop writer")(hold("daq-writer"))
fault("stop fork server", weight=2)(hold("daq-forks"))
fault("stop control", weight=2)(hold("control"))
fault("stop Redis", weight=2, loses_redis=True)(hold("redis"))


@fault("stop for 10 s", weight=1, loses_receiver=True, loses_redis=True)
def hold_long(session: Session, dice: random.Random) -> bool:
    """Longer than control waits for a receive loop that does not turn: it may be replaced."""
    pid = session.pid(dice.choice(("daq-receiver", "daq-writer", "daq-forks", "redis")))
    if pid is None:
        return False
    with standing_still([pid]):
        time.sleep(10.0)
    return True


HOG = "import time\nend = time.monotonic() + 1.0\nwhile time.monotonic() < end: pass"


@fault("starve a process of the processor", weight=2)
def starve(session: Session, dice: random.Random) -> bool:
    """It gets what others leave, and others take all there is."""
    pid = session.pid(dice.choice(("daq-receiver", "daq-writer", "daq-forks")))
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
        tasks = {int(task): os.sched_getscheduler(int(task)) for task in os.listdir(f"/proc/{pid}/task")}
        limits = {task: os.sched_getparam(task) for task in tasks}
        for task in tasks:
            os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
        hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(os.cpu_count() or 1)]
        for hog in hogs:
            hog.wait()
        for task, policy in tasks.items():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(task, policy, limits[task])
        return True
    return False


@fault("no descriptors left for control", weight=2)
def starve_descriptors(session: Session, dice: random.Random) -> bool:
    """For a second it can open nothing: no connection, no writer."""
    pid = session.service.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    n_open = len(os.listdir(f"/proc/{pid}/fd"))
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open, before[1]))
    except PermissionError:
        return False
    try:
        time.sleep(0.3)
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, session.service.ca_port), 1):
            time.sleep(0.5)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    return True


@fault("receive buffer of 4 kB for a second", weight=3)
def shrink_buffers(session: Session, dice: random.Random) -> bool:
    """The receiver's sockets hold one packet at a time: the kernel drops, and counts."""
    pid = session.pid("daq-receiver")
    if pid is None:
        return False
    before = []
    try:
        for descriptor in _sockets_of(pid):
            theirs = socket.socket(fileno=_descriptor_of(pid, descriptor))
            if theirs.type == socket.SOCK_DGRAM and theirs.family == socket.AF_INET:
                before.append((theirs, theirs.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)))
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            else:
                theirs.close()
        time.sleep(1.0)
        return bool(before)
    except OSError:
        return False
    finally:
        for theirs, size in before:
            with contextlib.suppress(OSError):
                theirs.setsockopt(socket.SOL_SOCKET, 33, size // 2)  # SO_RCVBUFFORCE
            theirs.close()


def _sockets_of(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        folder = Path(f"/proc/{pid}/fd")
        return [int(entry.name) for entry in folder.iterdir() if os.readlink(entry).startswith("socket:")]
    return []


def _descriptor_of(pid: int, descriptor: int) -> int:
    """Return a copy of another process's descriptor (pidfd_getfd(2))."""
    process = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, process, descriptor, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(copy)
    finally:
        os.close(process)
