"""A running service tells its service manager when it is ready, how it stands, and that it ends."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import StartService


@pytest.mark.timeout(180)
def test_the_service_says_ready_feeds_the_watchdog_and_says_that_it_ends(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        service = start_service()
        assert manager.recv(4096) == b"READY=1"
        assert manager.recv(4096) == b"WATCHDOG=1\nSTATUS=READY"
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert service.end() == 0
        while (heard := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert heard == b"STOPPING=1"
