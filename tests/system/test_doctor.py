"""``std-daq-ioc doctor`` as people run it, and its self-test with the real DAQ."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ioc.program.ports import LOOPBACK, free_ports

MARK = f"doctor-{os.getpid()}"
CONFIG = {
    "detector_name": "small",
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "n_modules": 2,
    "image_pixel_height": 64,
    "image_pixel_width": 1024,
    "start_udp_port": 0,
    "writer_user_id": -1,
    "module_positions": {"0": [0, 0, 1023, 31], "1": [0, 32, 1023, 63]},
    "ram_buffer_gb": 0.05,
}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Options that this machine has nothing against."""
    file = tmp_path / "detector.json"
    file.write_text(json.dumps(CONFIG | {"start_udp_port": free_ports(2, socket.SOCK_DGRAM)}))
    output = tmp_path / "output"
    output.mkdir()
    options = ["--config", str(file), "--output", str(output), "--udp-host", LOOPBACK, "--no-redis"]
    ca_port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    return [*options, "--rest-port", str(free_ports()), "--ca-port", str(ca_port)]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ioc", "doctor", *arguments],
        env=os.environ | {"STD_DAQ_TEST_MARK": MARK},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_it_lists_every_finding_and_a_cure_for_what_is_not_good(arguments: list[str]) -> None:
    done = doctor(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for subject in ("cores", "memory", "socket buffer", "detector's ports", "file owner", "file system"):
        assert any(line[9:].startswith(subject) for line in lines), done.stdout
    cures = {i - 1 for i, line in enumerate(lines) if line.strip().startswith(">")}
    assert cures == {i for i, line in enumerate(lines) if line.startswith(("limits", "problem"))}
    assert lines[-1].startswith("0 problems")


def test_what_will_not_work_is_exit_code_1(arguments: list[str]) -> None:
    with socket.create_server((LOOPBACK, 0)) as holder:
        port = str(holder.getsockname()[1])
        done = doctor(*arguments, "--rest-port", port, "--json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    (problem,) = [finding for finding in findings if finding["verdict"] == "problem"]
    assert problem["subject"] == "REST port"
    assert port in problem["text"]


def test_a_config_that_cannot_be_is_exit_code_2(tmp_path: Path) -> None:
    done = doctor("--config", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_the_self_test_tells_lossless_rates_and_leaves_nothing_behind(
    arguments: list[str], tmp_path: Path
) -> None:
    done = doctor(*arguments, "--measure", "--seconds", "4", "--json")
    for _ in range(2):  # it refuses to tell rates of a machine that has no time for it
        if "this machine is too busy for it" in done.stderr:
            done = doctor(*arguments, "--measure", "--seconds", "4", "--json")
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout)["measured"]
    assert measured["image_bytes"] == 64 * 1024 * 2
    for where in ("to_memory", "to_file"):
        rate = measured[where]
        assert rate["images_per_second"] > 0
        assert rate["bytes_per_second"] == pytest.approx(rate["images_per_second"] * measured["image_bytes"])
        assert rate["n_images"] >= 2
        assert rate["limit"]
    assert measured["n_compared"] >= 2
    assert list((tmp_path / "output").iterdir()) == []
    deadline = time.monotonic() + 20
    while left := processes_with(MARK):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def processes_with(mark: str) -> list[str]:
    """Return the command lines of all processes that have a text in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
