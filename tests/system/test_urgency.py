"""What somebody waits for goes first: the fork server, and a writer until its file is open."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from daq_core.linux.urgency import NICE
from tests.conftest import StartService
from tests.processes.service import JUNGFRAU_2

USUAL = os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="a better nice value needs CAP_SYS_NICE: run the tests as root")
def test_a_writer_at_work_is_like_all_others_with_all_of_its_threads(start_service: StartService) -> None:
    service = start_service(detector=JUNGFRAU_2 | {"compression": "bitshuffle-lz4", "compression_threads": 3})
    forks = processes(service.pid)["daq-forks"]
    run = {"output_file": str(service.output / "a.h5"), "n_images": 10}
    assert service.post("/writer/write_async", run)["status"] == "ok"
    found = processes(forks)
    assert nice_values(forks) == {NICE}
    assert nice_values(found["daq-receiver"]) == {USUAL}
    service.simulator().send(5, rate_hz=50)
    service.wait_for("WRITING")
    threads = list(Path(f"/proc/{found['daq-writer']}/task").iterdir())
    assert len(threads) >= 3
    assert nice_values(found["daq-writer"]) == {USUAL}
    service.post("/writer/stop")


def test_a_process_that_may_not_hurry_goes_on_as_it_is() -> None:
    program = """
import os, resource
from daq_core.linux.urgency import be_usual, hurry
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
before = os.nice(0)
hurry(); assert os.nice(0) == before
be_usual(); assert os.nice(0) == before
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def processes(pid: int) -> dict[str, int]:
    """Return the processes that a process has started, by the name ps shows."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
    return found


def nice_values(pid: int) -> set[int]:
    """Return the nice values of all threads of a process."""
    return {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}
