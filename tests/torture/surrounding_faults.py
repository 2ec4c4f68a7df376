"""Faults of what is around the service: disks, Redis, the reader of its log, strangers at its ports."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import time

import redis

from ioc.program.ports import LOOPBACK
from tests.daq.loopback import standing_still
from tests.torture.faults import fault, kill
from tests.torture.session import PIPE_BYTES, Session

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
