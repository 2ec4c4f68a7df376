"""No config that was set, whatever happens to ports and disks, keeps a service from a good one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ioc.program.ports import LOOPBACK, free_ports
from tests.channel_access.epics_peer import EpicsPeer
from tests.conftest import StartService
from tests.processes.control_group import control_group, n_killed
from tests.processes.service import JUNGFRAU_2, Service


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def saved(service: Service) -> Path:
    return Path(str(service.options["state_dir"])) / "config.json"


def saved_text(service: Service) -> str:
    return saved(service).read_text() if saved(service).exists() else ""


def set_port(service: Service) -> int:
    """Set another UDP port, and wait until that is saved."""
    port = free_ports(2, socket.SOCK_DGRAM)
    assert service.post("/daq/config", {"start_udp_port": port})["status"] == "ok"
    eventually(lambda: str(port) in saved_text(service), "the config was not saved")
    service.wait_for("READY")
    return port


def present_port(service: Service) -> int:
    return int(service.get("/daq/config")["config"]["start_udp_port"])


def status_command(service: Service) -> str:
    """Return what the command says beside the status."""
    url = os.environ | {"STD_DAQ_API_URL": service.rest_url}
    done = subprocess.run([sys.executable, "-m", "ioc", "status"], env=url, capture_output=True, text=True)
    assert done.returncode == 0
    return done.stderr


def test_a_saved_config_that_cannot_run_gives_way_to_the_file_with_an_alarm_on_every_face(
    start_service: StartService,
) -> None:
    service = start_service()
    port = set_port(service)
    service.end()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, port))
        service.start()
        assert present_port(service) == service.config.start_udp_port
        alarm = f"the config that was set last cannot run: UDP port {port} on {LOOPBACK} cannot be opened"
        assert service.get("/writer/status")["message"].startswith(f"Writer is READY Warning: {alarm}")
        assert alarm in service.get("/daq/config")["message"]
        assert alarm in status_command(service)
        service.logged(alarm)
        with EpicsPeer(service.ca_port) as peer:
            assert peer.text(service.prefix + "DAQ:Warning_RBV").startswith(alarm)
        service.end()
    service.start()  # it is not forgotten
    assert present_port(service) == port
    assert service.get("/writer/status")["message"] == "Writer is READY"


def test_a_config_set_while_the_state_disk_is_full_is_told_and_kept_when_there_is_room(
    start_service: StartService,
) -> None:
    service = start_service()
    full = saved(service).with_suffix(".new")
    full.symlink_to("/dev/full")
    answer = service.post("/daq/config", {"image_timeout_s": 0.25})
    assert answer["status"] == "ok"
    assert "Warning: the config is not kept for the next start: No space left on device" in answer["message"]
    service.wait_for("READY")
    assert "No space left on device" in status_command(service)
    full.unlink()
    assert service.post("/daq/config", {"log_level": "error"})["message"] == "Setting new daq config."
    eventually(lambda: saved(service).exists(), "the config was not saved")
    assert service.get("/writer/status")["message"] == "Writer is READY"
    service.end()
    service.start()
    config = service.get("/daq/config")["config"]
    assert (config["image_timeout_s"], config["log_level"]) == (0.25, "error")


def test_a_config_that_was_shown_ready_is_kept_even_if_the_service_is_killed_at_once(
    start_service: StartService,
) -> None:
    service = start_service()
    for _ in range(3):
        port = free_ports(2, socket.SOCK_DGRAM)
        assert service.post("/daq/config", {"start_udp_port": port})["status"] == "ok"
        service.wait_for("READY")
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
        assert str(port) in saved_text(service)
        service.start()
        assert present_port(service) == port


def test_a_config_that_a_disk_has_changed_is_not_taken_and_that_is_told(start_service: StartService) -> None:
    service = start_service()
    port = set_port(service)
    service.end()
    saved(service).write_text(saved(service).read_text().replace(str(port), str(port + 1)))
    service.start()
    assert present_port(service) == service.config.start_udp_port
    assert "is unusable: its checksum is another one" in service.get("/writer/status")["message"]


@pytest.mark.night
@pytest.mark.timeout(300)
def test_a_service_in_a_container_of_600_mib_lives_within_it(tmp_path: Path) -> None:
    """The ring is chosen by the container's limit, and one above it is refused, not tried out."""
    with control_group(600 * 2**20) as group:
        service = Service(tmp_path, {**JUNGFRAU_2, "ram_buffer_gb": 0}, {})
        service.group = group
        service.start()
        try:
            answer = service.post("/daq/config", {"ram_buffer_gb": 0.7})
            assert answer["status"] == "error"
            assert str(group) in answer["message"]
            for number in range(3):
                assert service.post("/daq/config", {"image_timeout_s": 0.5 + 0.1 * number})["status"] == "ok"
                service.wait_for("READY")
                path = service.output / f"run-{number}.h5"
                request = {"output_file": str(path), "n_images": 20}
                assert service.post("/writer/write_async", request)["status"] == "ok"
                service.simulator().send(20, rate_hz=20)
                assert service.wait_for("READY")["acquisition"]["message"] == "Completed."
            assert "receiver lost" not in service.log()
            assert n_killed(group) == 0
        finally:
            service.end()
