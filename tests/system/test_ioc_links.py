"""Every part the service depends on shows on Channel Access when it is lost, and when it is back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ioc.program.ports import LOOPBACK, free_ports
from rest_bridge.redis_server import server_binary
from tests.channel_access.epics_peer import EpicsPeer
from tests.conftest import StartService

MAJOR, INVALID = 2, 3
COMM = 9  # alarm status


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def descendants(pid: int) -> dict[str, int]:
    """Return the processes below one, by the name that ps shows."""
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        found[Path(f"/proc/{child}/comm").read_text().strip()] = child
        found |= descendants(child)
    return found


@pytest.mark.timeout(240)
def test_a_redis_that_is_away_is_an_alarm_until_it_is_there(
    start_service: StartService, tmp_path: Path
) -> None:
    port = free_ports()
    service = start_service(redis_url=f"redis://{LOOPBACK}:{port}", redis_port=None)
    with EpicsPeer(service.ca_port) as peer:
        link, latency = service.prefix + "IOC:RedisConnected_RBV", service.prefix + "IOC:RedisLatency_RBV"
        error = service.prefix + "IOC:LastError_RBV"
        peer.monitor(link)
        assert peer.text(link) == "Disconnected"
        assert peer.info(link)["severity"] == MAJOR
        assert peer.info(latency)["severity"] == INVALID  # not known
        eventually(lambda: f"Redis at {LOOPBACK}:{port}" in peer.text(error), "the error is not shown")
        assert peer.get(service.prefix + "IOC:Errors_RBV") >= 1
        redis = subprocess.Popen(
            [server_binary(), "--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        try:
            peer.wait_for(link, "Connected", timeout_s=60)
            eventually(lambda: peer.info(latency)["severity"] < INVALID, "the latency is not known")
        finally:
            redis.terminate()
            redis.wait(20)
        eventually(lambda: peer.updates(link)[-1] == "Disconnected", "the loss is not shown")


@pytest.mark.timeout(240)
def test_a_receiver_that_is_lost_is_an_alarm_until_it_is_back(start_service: StartService) -> None:
    service = start_service()
    with EpicsPeer(service.ca_port) as peer:
        state, rate = service.prefix + "DAQ:State_RBV", service.prefix + "DAQ:DetImagesPerSec_RBV"
        restarts = service.prefix + "IOC:Reconnects_RBV"
        peer.monitor(state, rate, restarts)
        receiver = descendants(service.pid)["daq-receiver"]
        os.kill(receiver, signal.SIGKILL)
        peer.wait_for(state, "UNKNOWN", timeout_s=60)
        peer.wait_for(restarts, 1.0, timeout_s=60)
        eventually(lambda: peer.updates(state)[-1] == "READY", "it does not come back")
        alarms = peer.alarms(rate)
        assert (COMM, INVALID) in alarms
        assert (COMM, INVALID) in peer.alarms(state)
        eventually(lambda: peer.alarms(rate)[-1] == (0, 0), "the rate stays in alarm")
