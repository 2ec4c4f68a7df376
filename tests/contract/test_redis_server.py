"""The embedded Redis server: whose it is, when it ends, what others may do with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.client import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from daq_core.errors import Unavailable
from daq_core.processes.group_signals import SENT_TO_ALL
from ioc.program.ports import LOOPBACK, free_ports
from rest_bridge import redis_server
from rest_bridge.redis_server import EmbeddedRedis

OWNER = """
import asyncio, sys
from rest_bridge.redis_server import EmbeddedRedis

async def own(port):
    async with EmbeddedRedis("127.0.0.1", port) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(own(int(sys.argv[1])))
"""


def ended(pid: int) -> bool:
    """Tell whether a process is gone; one that nobody collected yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 5
    while not ended(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


async def test_a_port_that_another_redis_has_is_refused_and_that_one_is_left_alone() -> None:
    port = free_ports()
    async with EmbeddedRedis(LOOPBACK, port) as first:
        with pytest.raises(Unavailable, match=f"{LOOPBACK} port {port}: the port is taken.*--redis-port"):
            async with EmbeddedRedis(LOOPBACK, port):
                pass
        assert not ended(first.pid)
    wait_for_end(first.pid)


async def test_an_address_that_is_not_ours_is_refused_with_the_servers_reason() -> None:
    with pytest.raises(Unavailable, match="Cannot assign requested address"):
        async with EmbeddedRedis("192.0.2.1", free_ports()):
            pass


async def test_without_a_binary_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(redis_server, "get_binary_path", None)
    with pytest.raises(Unavailable, match="--redis-url"):
        async with EmbeddedRedis(LOOPBACK, free_ports()):
            pass


def test_the_server_dies_with_a_service_that_was_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(free_ports())], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        assert not ended(server)
        owner.send_signal(signal.SIGKILL)
    wait_for_end(server)


async def test_a_server_that_hangs_ends_with_the_service_too() -> None:
    began = time.monotonic()
    async with EmbeddedRedis(LOOPBACK, free_ports()) as server:
        os.kill(server.pid, signal.SIGSTOP)
    wait_for_end(server.pid)
    assert time.monotonic() - began < 5


async def test_beyond_loopback_others_may_read_and_only_the_service_may_write() -> None:
    async with EmbeddedRedis("0.0.0.0", free_ports()) as server:
        with Redis.from_url(server.url) as service, Redis(LOOPBACK, server.port) as other:
            entry = service.xadd("daq:status", {"json": "{}"})
            assert other.xread({"daq:status": "0"}) == [[b"daq:status", [(entry, {b"json": b"{}"})]]]
            for command in (
                ("XADD", "daq:status", "*", "json", "{}"),
                ("DEL", "daq:status"),
                ("FLUSHALL",),
                ("CONFIG", "SET", "maxmemory", "1"),
                ("CLIENT", "PAUSE", "1000"),
                ("ACL", "LIST"),
                ("SHUTDOWN", "NOSAVE"),
            ):
                with pytest.raises(NoPermissionError):
                    other.execute_command(*command)


async def test_on_loopback_others_may_do_what_does_not_concern_the_server_itself() -> None:
    async with EmbeddedRedis(LOOPBACK, free_ports()) as server:
        with Redis(LOOPBACK, server.port) as other:
            other.xadd("somebodys:own", {"a": "b"})
            assert other.xlen("somebodys:own") == 1
            assert other.delete("somebodys:own") == 1
            for command in (
                ("FLUSHALL",),
                ("CONFIG", "SET", "maxmemory", "1"),
                ("CONFIG", "SET", "requirepass", "mine"),
                ("CONFIG", "GET", "*"),
                ("CLIENT", "PAUSE", "1000000"),
                ("CLIENT", "KILL", "TYPE", "normal"),
                ("CLIENT", "LIST"),
                ("ACL", "SETUSER", "default", "+@all"),
                ("REPLICAOF", "192.0.2.1", "6379"),
                ("DEBUG", "SLEEP", "1"),
                ("SHUTDOWN", "NOSAVE"),
                ("MONITOR",),
                ("SWAPDB", "0", "1"),
                ("EVAL", "return redis.call('FLUSHALL')", "0"),
                ("AUTH", "std-daq", "std-daq"),
            ):
                with pytest.raises(
                    RedisError,
                    match=r"(?i)noperm|no permissions|can't run|wrongpass|invalid username|not allowed",
                ):
                    other.execute_command(*command)


async def test_what_is_sent_to_a_whole_group_of_processes_is_not_the_servers() -> None:
    async with EmbeddedRedis(LOOPBACK, free_ports()) as server:
        for signum in SENT_TO_ALL:
            os.kill(server.pid, signum)
        with Redis.from_url(server.url) as redis:
            assert redis.ping()
        former = server.pid
    wait_for_end(former)


async def test_nothing_is_kept_on_disk_and_nobody_can_make_it_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with EmbeddedRedis(LOOPBACK, free_ports()) as server:
        assert os.listdir(tmp_path) == []
        with Redis.from_url(server.url) as redis:
            redis.set("key", "value")
            with pytest.raises(ResponseError):
                redis.save()
            with pytest.raises(ResponseError, match="protected config"):
                redis.config_set("dir", "/tmp")


async def test_beyond_loopback_no_trick_writes_or_becomes_the_services_user() -> None:
    async with EmbeddedRedis("0.0.0.0", free_ports()) as server:
        with Redis.from_url(server.url) as service, Redis(LOOPBACK, server.port) as other:
            service.set("daq:status", "true")
            for command in (
                ("AUTH", "std-daq", ""),
                ("AUTH", "std-daq", "std-daq"),
                ("HELLO", "3", "AUTH", "std-daq", "guess"),
                ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "daq:status"),
                ("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"),
                ("ACL", "SETUSER", "default", "+@all"),
                ("CONFIG", "GET", "*"),
                ("REPLICAOF", "192.0.2.1", "6379"),
                ("MONITOR",),
                ("SWAPDB", "0", "1"),
                ("GETDEL", "daq:status"),
                ("EXPIRE", "daq:status", "1"),
                ("RESTORE", "new", "0", "x"),
                ("PUBLISH", "channel", "x"),
                ("DEBUG", "SLEEP", "1"),
            ):
                with pytest.raises(
                    RedisError, match=r"(?i)noperm|no permissions|wrongpass|invalid username|not allowed"
                ):
                    other.execute_command(*command)
            assert other.get("daq:status") == b"true"
            assert service.config_get("maxmemory") is not None
