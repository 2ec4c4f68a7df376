"""What is done to the processes, disks and the Redis of a service, and to whom it talks.

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

import redis

from daq_core.processes.group_signals import SENT_TO_ALL
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import standing_still
from tests.torture.session import PIPE_BYTES, Session

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


# ------------------------------------------------------------------ disks


@fault("file size limit", weight=4, before_start=True)
def limit_file(session: Session, dice: random.Random) -> bool:
    """The writer may not go past some byte of its file: EFBIG. It has that from the fork server."""
    return _limit_files(session, dice.randrange(1, 8_000_000))


def lift_limit(session: Session) -> None:
    """Let the processes that are forked from now on write files of any size."""
    _limit_files(session, resource.RLIM_INFINITY)


def _limit_files(session: Session, n_bytes: int) -> bool:
    pid = session.pid("daq-forks")
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(
            pid, resource.RLIMIT_FSIZE, (hard if n_bytes == resource.RLIM_INFINITY else n_bytes, hard)
        )
        return True
    return False


@fault("disk full", weight=4, on_small_disk=True)
def fill_disk(session: Session, dice: random.Random) -> bool:
    """Somebody else's file takes all the space, or all but a few bytes of it."""
    if session.small_disk is None:
        return False
    left = dice.choice((0, 4096, 70_000, 1_000_000))
    with open(session.small_disk / FILLER, "wb") as other:
        for _ in range(100):  # the writer takes some of it meanwhile
            space = os.statvfs(session.small_disk)
            with contextlib.suppress(OSError):
                os.posix_fallocate(other.fileno(), 0, max(1, space.f_bavail * space.f_frsize - left))
                return True
    return False


FILLER = "filler"


def empty_disk(session: Session) -> None:
    """Give back what :func:`fill_disk` took."""
    if session.small_disk is not None:
        (session.small_disk / FILLER).unlink(missing_ok=True)


# ------------------------------------------------------------------ Redis


def _client(session: Session) -> redis.Redis:
    return redis.Redis(port=session.service.redis_port, socket_timeout=5)


@fault("kill Redis", weight=3, loses_redis=True)
def kill_redis(session: Session, dice: random.Random) -> bool:
    return kill(session, "redis")


BUSY = """
local function now() local t = redis.call('TIME'); return t[1] + t[2] / 1e6 end
local end_ = now() + 1.5
while now() < end_ do end
"""


@fault("Redis is busy with somebody else", weight=2, loses_redis=True)
def keep_busy(session: Session, dice: random.Random) -> bool:
    """A script of any local user: nobody is answered meanwhile."""
    with contextlib.suppress(redis.RedisError), _client(session) as client:
        client.execute_command("EVAL", BUSY, 0)
        return True
    return False


@fault("keys of Redis are removed", weight=2, loses_redis=True)
def remove_keys(session: Session, dice: random.Random) -> bool:
    with contextlib.suppress(redis.RedisError), _client(session) as client:
        client.delete("daq:status", "daq:writer_status", "daq:config", "daq:log", "daq:stat")
        return True
    return False


@fault("settings of Redis", weight=1)
def change_settings(session: Session, dice: random.Random) -> bool:
    """What ended the publishing for good when any local user might: all of it is refused."""
    with _client(session) as client:
        for words in (
            ("CONFIG", "SET", "maxmemory", 1),
            ("CLIENT", "PAUSE", 10_000_000, "ALL"),
            ("FLUSHALL",),
            ("REPLICAOF", LOOPBACK, 1),
            ("SHUTDOWN", "NOSAVE"),
        ):
            try:
                client.execute_command(*words)
            except redis.exceptions.NoPermissionError:
                continue
            except redis.RedisError:  # it stands still, or is dead
                return False
            raise AssertionError(f"any local user may {words}")
    return True


@fault("wrong type at a key of Redis", weight=2, loses_redis=True)
def wrong_type(session: Session, dice: random.Random) -> bool:
    key = dice.choice(("daq:status", "daq:log", "daq:stat", "daq:config"))
    with contextlib.suppress(redis.RedisError), _client(session) as client:
        client.delete(key)
        client.set(key, "no stream")
        time.sleep(1.0)
        client.delete(key)
        return True
    return False


# ------------------------------------------------------------------ nobody reads the log


@fault("nobody reads the log", weight=3)
def stop_log(session: Session, dice: random.Random) -> bool:
    """Whoever reads stderr stands still, and there is more to say than the pipe holds."""
    with standing_still([session.log_reader]):
        for _ in range(2 * PIPE_BYTES // 250):
            session.service.post("/writer/write_async", {"output_file": f"/no/{'x' * 200}", "n_images": 1})
        time.sleep(dice.uniform(0.0, 1.0))
    return True


# ------------------------------------------------------------------ strangers


@fault("random bytes at every port", weight=3)
def noise(session: Session, dice: random.Random) -> bool:
    """To REST, Redis and Channel Access, over TCP and UDP; half of the connections end in a reset."""
    service = session.service
    rest_port = int(service.rest_url.rpartition(":")[2])
    for port in (rest_port, service.redis_port, service.ca_port):
        for _ in range(5):
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1) as stranger:
                stranger.sendall(dice.randbytes(dice.randrange(1, 5000)))
                if dice.random() < 0.5:
                    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(10):
            stranger.sendto(dice.randbytes(dice.randrange(1, 1400)), (LOOPBACK, service.ca_port))
    return True


@fault("connections that say nothing", weight=2)
def silence(session: Session, dice: random.Random) -> bool:
    rest_port = int(session.service.rest_url.rpartition(":")[2])
    with contextlib.ExitStack() as open_ones:
        for port in (rest_port, session.service.ca_port):
            for _ in range(20):
                with contextlib.suppress(OSError):
                    half = open_ones.enter_context(socket.create_connection((LOOPBACK, port), 1))
                    half.sendall(b"GET /wri" if port == rest_port else b"\0")
        time.sleep(0.5)
    return True


@fault("an idle crowd at REST", weight=3)
def crowd(session: Session, dice: random.Random) -> bool:
    """More connections than there are places, of half a head each; others are answered all the same."""
    rest_port = int(session.service.rest_url.rpartition(":")[2])
    with contextlib.ExitStack() as open_ones:
        for _ in range(230):
            with contextlib.suppress(OSError):
                half = open_ones.enter_context(socket.create_connection((LOOPBACK, rest_port), 1))
                half.sendall(dice.choice((b"", b"GET /writer/status HTTP/1.1\r\nHost: loc")))
        assert session.service.get("/writer/status")["status"] == "ok"
        time.sleep(0.5)
    return True
