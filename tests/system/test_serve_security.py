"""What the whole program does against strangers and silence: token, UDP senders, timeouts, free space."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from std_daq_client import StdDaqClient
from std_daq_client.client import StdDaqAdminException

from ioc.program.ports import LOOPBACK
from tests.channel_access.epics_peer import EpicsPeer
from tests.conftest import StartService
from tests.daq.loopback import assert_holds
from tests.machine.judges import absent
from tests.processes.service import Service
from tests.system.test_cli import Cli

SECRET = "0123456789abcdef0123456789abcdef"


def command(service: Service, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a client command against a service."""
    return subprocess.run(
        [sys.executable, "-m", "ioc", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "STD_DAQ_API_URL": service.rest_url, **environment},
    )


def test_a_service_with_a_token_obeys_only_those_who_send_it(
    start_service: StartService, tmp_path: Path
) -> None:
    """The client commands send it, by option or environment; it is in no log and no answer."""
    token_file = tmp_path / "token"
    token_file.write_text(SECRET + "\n")
    token_file.chmod(0o600)
    service = start_service(token_file=token_file)
    path = service.output / "a.h5"
    with pytest.raises(StdDaqAdminException, match="token"):
        StdDaqClient(service.rest_url).start_writer_async({"output_file": str(path), "n_images": 1})
    refused = command(service, "start", path, 1, "--no-wait")
    assert (refused.returncode, "--token-file" in refused.stderr) == (1, True)
    assert not path.exists()
    assert command(service, "status").returncode == 0
    started = command(service, "start", path, 1, "--no-wait", "--token-file", token_file)
    assert started.returncode == 0, started.stderr
    stopped = command(service, "stop", STD_DAQ_TOKEN_FILE=str(token_file))
    assert stopped.returncode == 0, stopped.stderr
    changed = command(service, "config", "image_timeout_s=0.6", STD_DAQ_TOKEN_FILE=str(token_file))
    assert changed.returncode == 0, changed.stderr
    service.logged("refused")
    assert SECRET not in service.log() + started.stdout + stopped.stdout + changed.stdout
    assert SECRET not in Path(f"/proc/{service.pid}/cmdline").read_text()


def caget(service: Service, name: str) -> str:
    """Read a PV with the C library, in a process of its own."""
    program = "import sys, epics; print(epics.caget(sys.argv[1], timeout=30, as_string=True))"
    said = subprocess.run(
        [sys.executable, "-c", program, service.prefix + name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **service.ca_environment},
    )
    return said.stdout.strip().splitlines()[-1]


def test_foreign_senders_and_a_silent_detector_are_shown_by_every_face(start_service: StartService) -> None:
    service = start_service(udp_sources="127.0.0.1", first_image_timeout_s=1)
    path = str(service.output / "a.h5")
    assert service.post("/writer/write_async", {"output_file": path, "n_images": 3})["status"] == "ok"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.9", 0))
        for packets in service.simulator().packets(1):
            for packet in packets:
                stranger.sendto(bytes(packet), (LOOPBACK, service.config.start_udp_port))
    status = service.wait_for("FAILED")
    assert status["acquisition"]["message"] == "ERROR: no image came within 1 s"
    assert caget(service, "DAQ:AcqMessage_RBV") == status["acquisition"]["message"]
    deadline = time.monotonic() + 20
    while int(caget(service, "DAQ:PacketsForeign_RBV")) < 256:
        assert time.monotonic() < deadline
    assert int(caget(service, "DAQ:PacketsPlaced_RBV")) == 0
    answer = service.post("/writer/write_sync", {"output_file": path + "2", "n_images": 3})
    assert answer == {"status": "error", "message": "ERROR: no image came within 1 s"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 64 MiB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode != 0:
        absent("mounts", mount.stderr.strip())
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_little_free_space_is_in_the_answer_and_in_the_pvs_and_too_little_is_refused(
    start_service: StartService, small_disk: Path
) -> None:
    """Images of 2 MiB: thirty fit, forty do not."""
    service = start_service(output_root=small_disk)
    path = str(small_disk / "a.h5")
    refused = service.post("/writer/write_async", {"output_file": path, "n_images": 40})
    assert refused["message"] == "Not enough space: 40 images need 84 MB, but 67 MB are free."
    assert os.listdir(small_disk) == []
    accepted = service.post("/writer/write_async", {"output_file": path, "n_images": 30})
    warning = "only 4 MB will be left on the file system"
    assert (accepted["status"], accepted["message"]) == ("ok", f"Writing started. Warning: {warning}.")
    assert warning in caget(service, "DAQ:Warning_RBV")
    service.post("/writer/stop")
    started = Cli(service.rest_url)("start", "--no-wait", small_disk / "b.h5", 30)
    assert f"std-daq-ioc: Warning: {warning}." in started[2].splitlines()
    assert float(caget(service, "DAQ:DiskFree_RBV")) < 1
    assert caget(service, "DAQ:DiskFree_RBV.SEVR") == "MAJOR"
    service.post("/writer/stop")


def test_free_space_is_known_before_the_first_run_and_followed_between_runs(
    start_service: StartService, small_disk: Path
) -> None:
    """Nobody starts a run in the evening; somebody else fills the disk at night, and it is an alarm then."""
    service = start_service(output_root=small_disk)
    name = service.prefix + "DAQ:DiskFree_RBV"
    with EpicsPeer(service.ca_port) as peer:

        def wait_for_free(least: float, most: float) -> None:
            deadline = time.monotonic() + 30
            while not least < (free := peer.get(name)) < most:
                assert time.monotonic() < deadline, f"{free} GB are shown"
                time.sleep(0.2)

        wait_for_free(0.060, 0.068)
        assert peer.text(name + ".SEVR") == "MAJOR"
        (small_disk / "of somebody else").write_bytes(bytes(30 * 2**20))
        wait_for_free(0.030, 0.037)


def test_random_bytes_on_every_port_disturb_nobody(start_service: StartService) -> None:
    """Of the detector, of REST, of Redis and of Channel Access (TCP and UDP): then a run is perfect."""
    chance = random.Random(7)
    service = start_service()
    rest_port = int(service.rest_url.rpartition(":")[2])
    udp_ports = [service.config.start_udp_port, service.config.start_udp_port + 1, service.ca_port]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(600):
            size = chance.choice([0, 1, 16, 47, 48, 49, 8239, 8240, 8241, 9000])
            sender.sendto(chance.randbytes(size), (LOOPBACK, chance.choice(udp_ports)))
    for _ in range(60):
        port = chance.choice([rest_port, service.ca_port, service.redis_port])
        with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
            connection.sendall(chance.randbytes(chance.choice([1, 15, 16, 17, 64, 1000, 20_000])))
    assert service.running
    assert requests.get(service.rest_url + "/writer/status", timeout=10).json()["status"] == "ok"
    client = StdDaqClient(service.rest_url)
    path = str(service.output / "a.h5")
    client.start_writer_async({"output_file": path, "n_images": 20})
    service.simulator().send(20, rate_hz=100)
    assert service.wait_for("FINISHED", "FAILED")["acquisition"]["message"] == "Completed."
    assert_holds(Path(path), service.simulator(), range(1, 21))
