"""A service manager hears READY, the status and the watchdog on a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioc.serve import tell_of_start
from ioc.service.notify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else "@std-daq-" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if name.startswith("@") else name)
        manager.settimeout(10)
        yield name, manager


def test_what_is_told_arrives_one_assignment_a_line(listener: tuple[str, socket.socket]) -> None:
    name, manager = listener
    ServiceManager({"NOTIFY_SOCKET": name}).tell(READY=1, STATUS="all\nis well")
    assert manager.recv(4096) == b"READY=1\nSTATUS=all is well"


def test_a_start_that_takes_long_asks_for_more_time(listener: tuple[str, socket.socket]) -> None:
    name, manager = listener
    tell_of_start(ServiceManager({"NOTIFY_SOCKET": name}), "compiling: 3 of 16 kernels")
    assert manager.recv(4096) == b"STATUS=compiling: 3 of 16 kernels\nEXTEND_TIMEOUT_USEC=120000000"


async def test_the_watchdog_is_fed_at_half_its_limit_and_the_status_sent_when_it_changes(
    listener: tuple[str, socket.socket],
) -> None:
    name, manager = listener
    ours = ServiceManager(
        {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert ours.watchdog_s == 0.05
    status = "READY"
    informing = asyncio.create_task(ours.keep_informed(lambda: status))
    heard = [await asyncio.to_thread(manager.recv, 4096) for _ in range(2)]
    status = "WRITING"
    while heard[-1] != b"WATCHDOG=1\nSTATUS=WRITING":
        heard.append(await asyncio.to_thread(manager.recv, 4096))
        assert len(heard) < 100
    informing.cancel()
    assert heard[:2] == [b"WATCHDOG=1\nSTATUS=READY", b"WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment",
    [{"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, {}],
)
def test_no_watchdog_is_fed_that_is_not_ours(environment: dict[str, str]) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/none", **environment}).watchdog_s is None


@pytest.mark.parametrize("name", ["", "/there/is/none"])
def test_a_manager_that_does_not_listen_hurts_nobody(name: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": name}).tell(READY=1)
