"""The running service: recordings become files, and a killed writer shows on every face alike."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import redis

from daq_core.config import DaqConfig
from daq_core.recordings.recording import load_recording
from daq_core.recordings.replay import replay
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.conftest import StartService
from tests.machine.judges import absent
from tests.processes.service import Service

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"
STOP_LIMIT_S = 5.0


@pytest.mark.parametrize("name", ["eiger-500k-32bit", "eiger-500k-16bit", "jungfrau-1-module"])
def test_a_recording_replayed_into_the_service_gives_its_expected_images(
    name: str, start_service: StartService
) -> None:
    """Ids and SHA-256 of each image are those in the recording's ``expected.json``; twice in a row."""
    folder = RECORDINGS / name
    if not folder.is_dir():
        absent("recordings", f"{name} is not there")
    recorded = DaqConfig.load(folder / "config.json")
    expected = json.loads((folder / "expected.json").read_text())
    service = start_service(detector=recorded.as_dict() | {"ram_buffer_gb": 0.05})
    offset = service.config.start_udp_port - recorded.start_udp_port

    for run in range(2):
        path = service.output / f"{run}.h5"
        answer = service.post("/writer/write_async", {"output_file": str(path), "n_images": len(expected)})
        assert answer["status"] == "ok", answer
        replay(load_recording(folder), port_offset=offset)
        assert service.wait_for("READY")["acquisition"]["message"] == "Completed."
        with h5py.File(path) as file:
            images = zip(file["entry/data/image_id"][:], file["entry/data/data"], strict=True)
            found = {str(i): hashlib.sha256(image.tobytes()).hexdigest() for i, image in images}
        assert found == {i: image["sha256"] for i, image in expected.items()}


def test_a_killed_writer_shows_on_every_face_and_the_next_run_is_perfect(start_service: StartService) -> None:
    service = start_service()
    path = service.output / "killed.h5"
    simulator = service.simulator()
    stream = redis.Redis(port=service.redis_port)
    with EpicsPeer(service.ca_port) as peer:
        peer.monitor(service.prefix + "DAQ:AcqState_RBV")
        service.post("/writer/write_async", {"output_file": str(path), "n_images": 1000})
        simulator.send(10, rate_hz=100)
        _until_written(service, 10)

        os.kill(_writer_of(service), signal.SIGKILL)

        failed = service.wait_for("FAILED")["acquisition"]
        assert failed["message"].startswith("ERROR: writer lost: process")
        assert failed["info"]["output_file"] == str(path)
        peer.wait_for(service.prefix + "DAQ:AcqState_RBV", "FAILED")
        assert peer.text(service.prefix + "DAQ:AcqMessage_RBV") == failed["message"]
        told = [json.loads(entry[b"json"]) for _, entry in stream.xrange("daq:status")]
        assert any(status["acquisition"]["message"] == failed["message"] for status in told)
        assert "UNKNOWN" in [status["state"] for status in told]

        begun = time.monotonic()
        assert peer.put(service.prefix + "DAQ:Stop", 1) == ECA_NORMAL
        assert time.monotonic() - begun < STOP_LIMIT_S
        assert service.status()["state"] == "READY"
    with h5py.File(path) as file:
        assert len(file["entry/data/data"]) >= 10
        for image_id, image in zip(file["entry/data/image_id"][:], file["entry/data/data"], strict=True):
            np.testing.assert_array_equal(image, simulator.image(int(image_id)))

    _take_a_perfect_run(service)


def test_a_disk_that_fails_says_the_same_on_every_face_and_in_the_file(start_service: StartService) -> None:
    """The limit of the writer's files lies within the third image, as a quota would."""
    service = start_service()
    path, simulator = service.output / "full.h5", service.simulator()
    service.post("/writer/write_async", {"output_file": str(path), "n_images": 5})
    limit = int(2.5 * 2**21)
    resource.prlimit(_writer_of(service), resource.RLIMIT_FSIZE, (limit, limit))
    simulator.send(5, rate_hz=20)
    failed = service.wait_for("FAILED")["acquisition"]
    n_written = failed["stats"]["n_write_completed"]
    assert failed["message"] == f"ERROR: Cannot write image {n_written} to {path}: File too large."
    assert 0 < n_written <= 2
    with EpicsPeer(service.ca_port) as peer:
        assert peer.text(service.prefix + "DAQ:AcqMessage_RBV") == failed["message"]
        assert peer.get(service.prefix + "DAQ:AcqState_RBV", as_string=True) == "FAILED"
        assert peer.get(service.prefix + "DAQ:State_RBV", as_string=True) == "READY"
        assert peer.get(service.prefix + "DAQ:AcqNWriteCompleted_RBV") == n_written
        assert peer.text(service.prefix + "DAQ:Log1:Message_RBV") == failed["message"]
    stream = redis.Redis(port=service.redis_port)
    newest = json.loads(stream.xrevrange("daq:status", count=1)[0][1][b"json"])
    assert newest["acquisition"] == failed
    assert stream.xrange("daq:log") == []  # of FINISHED runs alone, as std_daq's
    assert service.get("/daq/logs/5")["logs"] == []
    journal = (Path(service.options["state_dir"]) / "journal.jsonl").read_text().splitlines()
    ended = [entry for entry in map(json.loads, journal) if "begun" not in entry]
    assert [(entry["state"], entry["message"]) for entry in ended] == [("FAILED", failed["message"])]
    with h5py.File(path) as file:
        assert len(file["entry/data/data"]) >= n_written
        assert file["entry/run/message"].asstr()[()] == failed["message"]
    _take_a_perfect_run(service)


def _take_a_perfect_run(service: Service) -> None:
    path, simulator = service.output / "next.h5", service.simulator()
    service.post("/writer/write_async", {"output_file": str(path), "n_images": 100})
    simulator.send(100, rate_hz=200)
    status = service.wait_for("READY")
    assert status["acquisition"]["message"] == "Completed."
    with h5py.File(path) as file:
        assert file["entry/data/image_id"][:].tolist() == list(range(1, 101))
        assert not file["entry/data/missing_packets"][:].any()
        for image_id, image in enumerate(file["entry/data/data"], 1):
            np.testing.assert_array_equal(image, simulator.image(image_id))


def _until_written(service: Service, n_images: int) -> None:
    deadline = time.monotonic() + 20
    while service.status()["acquisition"]["stats"]["n_write_completed"] < n_images:
        assert time.monotonic() < deadline, f"{service.status()}; log:\n{service.log()}"
        time.sleep(0.01)


def _writer_of(service: Service) -> int:
    """Return the pid of the run's writer: a child of the service's fork server."""
    (pid,) = [
        child
        for forks in _children(service.pid)
        for child in _children(forks)
        if Path(f"/proc/{child}/comm").read_text() == "daq-writer\n"
    ]
    return pid


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
