"""The service as a process: how it starts, what it refuses to start with, how it ends, what it remembers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from ioc.program.ports import LOOPBACK, free_ports
from tests.channel_access.epics_peer import EpicsPeer
from tests.machine.judges import absent
from tests.processes.service import JUNGFRAU_2, Service, command_line

EIGER_HALF = {
    "detector_name": "eiger",
    "detector_type": "eiger",
    "bit_depth": 16,
    "n_modules": 1,
    "image_pixel_height": 256,
    "image_pixel_width": 514,
    "start_udp_port": 50000,
    "writer_user_id": -1,
    "module_positions": {"0": [0, 0, 513, 255]},
}

StartService = Callable[..., Service]


def refused(service_options: dict[str, object], **environment: str) -> tuple[int, str]:
    """Try to serve with options that cannot be; return the exit code and what was said on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "ioc", "serve", *command_line(service_options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@contextmanager
def occupied(port: int, kind: socket.SocketKind) -> Iterator[None]:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((LOOPBACK, port))
        if kind is socket.SOCK_STREAM:
            other.listen()
        yield


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    """Options that would do, each test spoils one."""
    config = tmp_path / "detector.json"
    config.write_text(json.dumps({**JUNGFRAU_2, "start_udp_port": free_ports(2, socket.SOCK_DGRAM)}))
    return {
        "config": config,
        "prefix": "TREFUSED:",
        "rest_port": free_ports(),
        "redis_port": free_ports(),
        "ca_port": free_ports(1, socket.SOCK_STREAM, socket.SOCK_DGRAM),
        "udp_host": LOOPBACK,
        "state_dir": tmp_path / "state",
    }


def test_the_ready_line_names_every_face(service: Service) -> None:
    assert f"REST {service.rest_url}" in service.ready_line
    assert f"CA {service.prefix} at {LOOPBACK}:{service.ca_port}" in service.ready_line
    assert f"Redis {LOOPBACK}:{service.redis_port}" in service.ready_line
    first = service.config.start_udp_port
    assert f"UDP {LOOPBACK}:{first}..{first + 1}" in service.ready_line


def test_a_run_holds_every_pixel_that_was_sent(service: Service) -> None:
    file = service.output / "run.h5"
    assert service.post("/writer/write_async", {"output_file": str(file), "n_images": 20})["status"] == "ok"
    simulator = service.simulator()
    simulator.send(20, rate_hz=50, first_id=7)
    service.wait_for("FINISHED")

    with h5py.File(file) as written:
        assert written["entry/data/image_id"][:].tolist() == list(range(7, 27))
        for image_id, image in zip(range(7, 27), written["entry/data/data"], strict=True):
            np.testing.assert_array_equal(image, simulator.image(image_id))


def test_root_that_writes_as_root_is_a_line_of_the_log_and_no_alarm(start_service: StartService) -> None:
    """A documented setting; what is yellow all the time is looked at by nobody."""
    if os.geteuid() != 0:
        absent("root", "the service writes as root")
    service = start_service({**JUNGFRAU_2, "writer_user_id": 0})
    file = service.output / "as_root.h5"
    assert service.post("/writer/write_async", {"output_file": str(file), "n_images": 1})["status"] == "ok"
    service.simulator().send(1, rate_hz=50)
    service.wait_for("FINISHED")
    assert " INFO " in service.logged("files will belong to root: writer_user_id is 0")
    assert service.get("/writer/status")["warning"] == ""
    with EpicsPeer(service.ca_port) as peer:
        name = service.prefix + "DAQ:Warning_RBV"
        assert (peer.text(name), peer.info(name)["severity"]) == ("", 0)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_closes_the_running_file_first(start_service: StartService, signum: signal.Signals) -> None:
    service = start_service()
    file = service.output / "interrupted.h5"
    service.post("/writer/write_async", {"output_file": str(file), "n_images": 1000})
    service.simulator().send(10, rate_hz=50)
    service.wait_for_images(10)

    assert service.end(signum) == 0
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 10
    assert "Traceback" not in service.log()


def test_a_second_signal_does_not_wait_for_a_hung_writer(start_service: StartService) -> None:
    service = start_service()
    service.post("/writer/write_async", {"output_file": str(service.output / "hung.h5"), "n_images": 1000})
    service.simulator().send(5, rate_hz=50)
    service.wait_for("WRITING")
    (writer,) = [pid for pid in descendants(service.pid) if has_open(pid, "hung.h5")]
    os.kill(writer, signal.SIGSTOP)
    try:
        os.kill(service.pid, signal.SIGTERM)
        time.sleep(1.2)  # within a second it would count as the same
        assert service.end() == 1
    finally:
        os.kill(writer, signal.SIGKILL)
    assert "ending at once" in service.log()


@pytest.mark.parametrize(
    ("option", "kind", "word"),
    [
        ("rest_port", socket.SOCK_STREAM, "--rest-port"),
        ("redis_port", socket.SOCK_STREAM, "--redis-port"),
        ("ca_port", socket.SOCK_STREAM, "--ca-port"),
        ("ca_port", socket.SOCK_DGRAM, "--ca-port"),
    ],
)
def test_a_taken_port_is_one_clear_line(
    options: dict[str, object], option: str, kind: socket.SocketKind, word: str
) -> None:
    port = options[option]
    assert isinstance(port, int)
    with occupied(port, kind):
        code, said = refused(options)

    complaint = said.splitlines()[-1]
    assert code == 1
    assert complaint.startswith("std-daq-ioc: ")
    assert str(port) in complaint
    assert word in complaint
    assert "Traceback" not in said


@pytest.mark.parametrize("shared", ["everything", "ports", "state_dir"])
def test_a_second_service_is_refused_and_the_run_of_the_first_goes_on(
    service: Service, tmp_path: Path, shared: str
) -> None:
    path = service.output / f"first-{shared}.h5"
    assert service.post("/writer/write_async", {"output_file": str(path), "n_images": 20})["status"] == "ok"
    options = dict(service.options)
    if shared == "ports":
        options["state_dir"] = tmp_path / "other"
    if shared == "state_dir":
        other = {**service.config.as_dict(), "start_udp_port": free_ports(2, socket.SOCK_DGRAM)}
        (tmp_path / "other.json").write_text(json.dumps(other))
        options |= {"config": tmp_path / "other.json", "rest_port": free_ports(), "redis_port": free_ports()}
        options["ca_port"] = free_ports(1, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    code, said = refused(options)
    complaint = said.splitlines()[-1]
    assert code == 1
    assert complaint.startswith("std-daq-ioc: ")
    assert ("is held by daq-receiver" if shared == "ports" else "is in use by another service") in complaint
    assert "Traceback" not in said
    service.simulator().send(20, rate_hz=50)
    assert service.wait_for("FINISHED", "FAILED")["acquisition"]["message"] == "Completed."
    with h5py.File(path) as file:
        assert len(file["entry/data/data"]) == 20


def test_a_state_directory_that_cannot_be_written_is_a_warning_and_runs_go_on(
    start_service: StartService, tmp_path: Path
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        absent("mounts", "no file system can be mounted")
    try:
        service = start_service(state_dir=folder)
        service.logged(f"the state directory {folder} cannot be written")
        path = str(service.output / "a.h5")
        service.post("/writer/write_async", {"output_file": path, "n_images": 5})
        service.simulator().send(5, rate_hz=50)
        assert service.wait_for("FINISHED", "FAILED")["acquisition"]["message"] == "Completed."
        assert service.post("/daq/config", {"image_timeout_s": 0.25})["status"] == "ok"
        service.wait_for("READY")
        assert len(service.get("/daq/logs/5")["logs"]) == 1
        service.logged("journal.jsonl cannot be written: Read-only file system")
        assert service.end() == 0
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_taken_udp_port_is_one_clear_line(options: dict[str, object]) -> None:
    config = options["config"]
    assert isinstance(config, Path)
    port = json.loads(config.read_text())["start_udp_port"] + 1
    with occupied(port, socket.SOCK_DGRAM):
        code, said = refused(options)

    assert code == 1
    assert f"UDP port {port} on {LOOPBACK} cannot be opened: it is held by" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("spoiled", "code", "words"),
    [
        ({"config": "/nowhere/detector.json"}, 2, "/nowhere/detector.json: cannot be read: No such file"),
        ({"state_dir": "/proc/nothing"}, 1, "The state directory /proc/nothing cannot be made"),
        ({"output_root": "/nowhere"}, 2, "/nowhere"),
        ({"bind": "0.0.0.0"}, 2, "needs --output-root"),
        ({"bind": "0.0.0.0", "output_root": "/tmp"}, 2, "needs --token-file or --trusted-networks"),
        ({"token_file": "/nowhere/token"}, 1, "/nowhere/token cannot be read: No such file"),
        ({"trusted_networks": "10.0.0.1/8"}, 2, "--trusted-networks 10.0.0.1/8: "),
        ({"udp_sources": "detector"}, 2, "--udp-sources detector: "),
        ({"udp_sources": "fd00::/8"}, 2, "must be IPv4"),
        ({"receiver_cpus": "1-x"}, 2, "'1-x' is no CPU number"),
        ({"receiver_cpus": "100000"}, 2, "CPU 100000 cannot be used here"),
        ({"stall_timeout_s": 0}, 2, "--stall-timeout-s"),
        ({"redis_url": "redis://127.0.0.1:1", "no_redis": True}, 2, "exclude each other"),
        ({"rest_port": 70000}, 2, "Invalid value for '--rest-port'"),
        ({"id_source": "pulse"}, 2, "pulse"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    options: dict[str, object], spoiled: dict[str, object], code: int, words: str
) -> None:
    exit_code, said = refused({**options, **spoiled})

    assert exit_code == code
    assert words in said
    assert len(said.splitlines()) == 1


def test_a_config_that_cannot_be_names_file_and_key(options: dict[str, object], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**JUNGFRAU_2, "start_udp_port": 50000, "bit_depth": 7}))

    code, said = refused({**options, "config": wrong})

    assert code == 2
    assert str(wrong) in said
    assert "bit_depth 7" in said
    assert len(said.splitlines()) == 1


def test_bunch_ids_are_for_a_jungfrau(options: dict[str, object], tmp_path: Path) -> None:
    eiger = tmp_path / "eiger.json"
    eiger.write_text(json.dumps(EIGER_HALF))

    code, said = refused({**options, "config": eiger, "id_source": "bunch"})

    assert code == 2
    assert "--id-source bunch is for a Jungfrau" in said


def test_options_come_from_the_environment_too(options: dict[str, object]) -> None:
    port = options.pop("rest_port")
    assert isinstance(port, int)
    with occupied(port, socket.SOCK_STREAM):
        code, said = refused(options, STD_DAQ_REST_PORT=str(port))

    assert code == 1
    assert f"port {port}" in said


def test_the_last_config_that_was_set_survives_a_restart(start_service: StartService) -> None:
    service = start_service()
    assert service.post("/daq/config", {"image_timeout_s": 0.25})["status"] == "ok"
    service.wait_for("READY")
    assert service.end() == 0

    service.start()
    assert service.get("/daq/config")["config"]["image_timeout_s"] == 0.25
    service.logged("--fresh takes the file")


def test_a_newer_edit_of_the_config_file_wins_back(start_service: StartService) -> None:
    service = start_service()
    service.post("/daq/config", {"image_timeout_s": 0.25})
    service.wait_for("READY")
    assert service.end() == 0
    os.utime(service.config_file, (time.time() + 2, time.time() + 2))

    service.start()
    assert "image_timeout_s" not in service.get("/daq/config")["config"]


def test_fresh_forgets_the_config_that_was_set(start_service: StartService) -> None:
    service = start_service()
    service.post("/daq/config", {"image_timeout_s": 0.25})
    service.wait_for("READY")
    assert service.end() == 0

    service.options["fresh"] = True
    service.start()
    assert "image_timeout_s" not in service.get("/daq/config")["config"]


def descendants(pid: int) -> list[int]:
    """List the processes below a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def has_open(pid: int, name: str) -> bool:
    return any(name in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
