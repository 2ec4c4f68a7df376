"""kill -9 of the service: the next start on the same ports finds the truth about the run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from redis.client import Redis
from redis.exceptions import RedisError

from daq_core.files.superblock import read_superblock
from tests.conftest import StartService
from tests.processes.service import Service

KILLED = "ERROR: the service was killed while the run was going on."


def begin(service: Service, n_images: int) -> Path:
    path = service.output / "run.h5"
    answer = service.post(
        "/writer/write_async", {"output_file": str(path), "n_images": n_images, "run_id": 7}
    )
    assert answer["status"] == "ok", answer
    return path


def journal(service: Service) -> list[dict[str, object]]:
    lines = (Path(service.options["state_dir"]) / "journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "begun" not in entry]


def recorded(service: Service) -> dict[str, object]:
    """Wait until the interrupted run is in the journal; return its record."""
    deadline = time.monotonic() + 60
    while not (entries := journal(service)):
        assert time.monotonic() < deadline, service.log()
        time.sleep(0.05)
    assert len(entries) == 1
    return entries[0]


def next_run_is_perfect(service: Service) -> None:
    path = service.output / "next.h5"
    assert service.post("/writer/write_async", {"output_file": str(path), "n_images": 10})["status"] == "ok"
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(10, rate_hz=50)
    status = service.wait_for("FINISHED", "FAILED")["acquisition"]
    assert (status["message"], status["stats"]["n_write_completed"]) == ("Completed.", 10)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("n_sent", [0, 5])
def test_a_run_of_a_killed_service_is_kept_as_failed(start_service: StartService, n_sent: int) -> None:
    service = start_service()
    path = begin(service, 100)
    service.wait_for("WAITING_IMAGES")
    if n_sent:
        service.simulator().send(n_sent, rate_hz=50)
        service.wait_for("WRITING")
        while service.status()["acquisition"]["stats"]["n_write_completed"] < n_sent:
            time.sleep(0.01)
    assert service.end(signal.SIGKILL) == -signal.SIGKILL
    service.start()  # at once, on the same ports
    entry = recorded(service)
    assert (entry["state"], entry["message"]) == ("FAILED", KILLED)
    assert entry["n_write_completed"] == n_sent
    with h5py.File(path) as file:
        assert len(file["entry/data/data"]) == n_sent
        assert file["entry/run/state"].asstr()[()] == "FAILED"
    assert service.get("/daq/logs/5")["logs"] == []  # of std_daq's log are FINISHED runs alone
    assert service.status()["state"] == "READY"
    (run,) = service.get("/daq/runs/5")["runs"]
    assert run["stats"]["n_incomplete"] == 0  # its writer closed the file, and said so in it
    assert run["stats"]["efficiency"] == (1.0 if n_sent else None)
    next_run_is_perfect(service)


@pytest.mark.timeout(240)
def test_a_service_killed_while_ready_records_nothing(start_service: StartService) -> None:
    service = start_service()
    service.end(signal.SIGKILL)
    service.start()
    next_run_is_perfect(service)
    assert recorded(service)["state"] == "FINISHED"


@pytest.mark.timeout(240)
def test_a_file_that_nobody_made_is_said_so(start_service: StartService) -> None:
    service = start_service()
    path = begin(service, 100)
    service.end(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:  # the writer that was left closes the file by itself
        try:
            with h5py.File(path) as file:
                assert file["entry/run/state"].asstr()[()] == "FAILED"
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    os.unlink(path)
    service.start()
    entry = recorded(service)
    assert entry["state"] == "FAILED"
    assert "No such file" in str(entry["message"])
    assert entry["n_write_completed"] == 0


def cut_an_image_off(path: Path, image_bytes: int) -> str:
    """Leave what a power cut leaves; return what is to be said of five images."""
    os.truncate(path, path.stat().st_size - image_bytes)
    return "it is cut off in the middle of its images; is it an unfinished copy? 4 of its 5 images are whole"


def claim_to_be_longer(path: Path, image_bytes: int) -> str:
    """Far beyond its end: HDF5 would wait for the rest for ever."""
    with path.open("r+b") as file:
        block = read_superblock(file.fileno())
        file.write(replace(block, end_of_file=1 << 50).packed())
    return f"{path.stat().st_size} bytes of the {1 << 50} that it says it has"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("damage", [cut_an_image_off, claim_to_be_longer])
def test_a_damaged_file_that_is_marked_as_being_written_holds_up_no_start_and_is_told(
    start_service: StartService, damage: Callable[[Path, int], str]
) -> None:
    service = start_service()
    path = begin(service, 100)
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(5, rate_hz=50)
    service.wait_for_images(5)
    writer = children(children(service.pid)["daq-forks"])["daq-writer"]
    os.kill(writer, signal.SIGSTOP)
    service.end(signal.SIGKILL)
    os.kill(writer, signal.SIGKILL)
    said = damage(path, service.simulator().image(1).nbytes)
    n_bytes = path.stat().st_size
    service.start()
    entry = recorded(service)
    assert entry["state"] == "FAILED"
    message = str(entry["message"])
    assert message.startswith(KILLED.removesuffix(".") + "; ")
    assert said in message
    assert path.stat().st_size == n_bytes
    next_run_is_perfect(service)
    assert "daq-mend" not in children(children(service.pid)["daq-forks"])


def children(pid: int) -> dict[str, int]:
    """Return the processes that a process has started, by the name ps shows."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
    return found


@pytest.mark.timeout(240)
def test_redis_killed_in_each_state_of_a_run_costs_the_run_nothing(start_service: StartService) -> None:
    """It is started again, and has the log again."""
    service = start_service()
    simulator = service.simulator()

    def kill_redis() -> None:
        before = redis_of(service)
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while redis_of(service) in (0, before):
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.02)

    path = begin(service, 20)
    service.wait_for("WAITING_IMAGES")
    kill_redis()
    simulator.send(10, rate_hz=50)
    service.wait_for("WRITING")
    kill_redis()
    simulator.send(10, rate_hz=50, first_id=11)
    assert service.wait_for("FINISHED", "FAILED")["acquisition"]["message"] == "Completed."
    kill_redis()
    with h5py.File(path) as file:
        assert file["entry/data/image_id"][:].tolist() == list(range(1, 21))
    deadline = time.monotonic() + 60
    with Redis("127.0.0.1", service.redis_port) as redis:
        while not (logged := logged_in(redis)):
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.05)
    assert [entry["info"]["output_file"] for entry in logged] == [str(path)]


def redis_of(service: Service) -> int:
    """Return the process of the embedded Redis, 0 while there is none."""
    found = children(service.pid)
    return next((pid for name, pid in found.items() if "redis" in name or "valkey" in name), 0)


def logged_in(redis: Redis) -> list[dict[str, Any]]:
    with suppress(RedisError):
        return [json.loads(fields[b"json"]) for _, fields in redis.xrange("daq:log")]
    return []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fate", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "is killed too"])
def test_a_writer_that_still_has_the_file_is_waited_for_behind_ready(
    start_service: StartService, fate: signal.Signals
) -> None:
    service = start_service()
    path = begin(service, 100)
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(5, rate_hz=50)
    while service.status()["acquisition"]["stats"]["n_write_completed"] < 5:
        time.sleep(0.01)
    writer = children(children(service.pid)["daq-forks"])["daq-writer"]
    os.kill(writer, signal.SIGSTOP)
    try:
        service.end(signal.SIGKILL)
        service.start()  # READY although the writer holds the file
        assert journal(service) == []
    finally:
        os.kill(writer, fate)
    entry = recorded(service)
    assert (entry["state"], entry["message"], entry["n_write_completed"]) == ("FAILED", KILLED, 5)
    with h5py.File(path) as file:  # closed by its writer, or repaired
        assert len(file["entry/data/data"]) == 5
        assert file["entry/run/state"].asstr()[()] == "FAILED"
