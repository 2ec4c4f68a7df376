"""A second service with the prefix of another one says so when it starts, and serves all the same."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from ioc.channel_access.namesakes import ask, search_addresses
from ioc.program.ports import LOOPBACK, free_ports
from tests.processes.service import JUNGFRAU_2, Service


def test_the_second_service_with_a_prefix_names_the_first(tmp_path: Path) -> None:
    services = []
    for name, prefix in (("first", "TWICE:"), ("second", "TWICE:"), ("third", "ONCE:")):
        (tmp_path / name).mkdir()
        services.append(Service(tmp_path / name, JUNGFRAU_2, {"prefix": prefix}))
    first, second, third = services
    looks_at = f"{LOOPBACK}:{first.ca_port}"
    for service in services:
        service.ca_environment["EPICS_CA_ADDR_LIST"] = looks_at
    try:
        for service in services:
            service.start()
        line = second.logged("another IOC")
        assert " ERROR " in line
        assert (
            f"ioc.channel_access.namesakes: another IOC, at {looks_at}, serves TWICE:DAQ:State_RBV, too"
            in line
        )
        assert "another --prefix" in line
        assert second.status()["state"] == "READY"
        assert "another IOC" not in first.log() + third.log()
        assert first.end() == 0  # and it does not find itself when it is started again
        first.start()
        assert "another IOC" not in first.log()
    finally:
        for service in services:
            service.discard()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00", b"\xff" * 65, os.urandom(1400), b"\x00\x06\x00\x08\x13\xc8\x00\x00" + 16 * b"\xff"],
)
def test_what_is_no_answer_is_passed_over(answer: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))

        def reply() -> None:
            _, client = server.recvfrom(1 << 16)
            server.sendto(answer, client)

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        assert ask("X:DAQ:State_RBV", [server.getsockname()]) == []
        thread.join(30)


def test_an_address_where_nobody_is_or_that_is_none_is_passed_over() -> None:
    nobody = (LOOPBACK, free_ports(1, socket.SOCK_DGRAM))
    assert ask("X:DAQ:State_RBV", [("no such host", 5064), nobody, ("0.0.0.0.0", 1)]) == []


def test_a_service_on_loopback_asks_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICS_CA_ADDR_LIST", "192.0.2.7 127.0.0.1:5070 daq.example:5080")
    monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "YES")
    assert search_addresses(LOOPBACK, 5064) == [(LOOPBACK, 5064), (LOOPBACK, 5070)]
    monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
    assert search_addresses("0.0.0.0", 5064) == [
        ("192.0.2.7", 5064),
        (LOOPBACK, 5070),
        ("daq.example", 5080),
    ]
