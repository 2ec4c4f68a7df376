"""What a run lost is on every face: REST, Redis, the log, and what the commands print and exit with."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
import redis

from daq_core.simulating.faults import Chaos
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK
from tests.conftest import StartService
from tests.processes.service import Service
from tests.system.test_cli import Cli

N_IMAGES, N_PACKETS = 5, 128
KEYS = {
    "n_incomplete": N_IMAGES,
    "n_sparse": 0,
    "n_missing_packets": N_IMAGES * N_PACKETS,
    "n_dropped": 0,
    "n_mismatched": 0,
    "n_other_format": 0,
    "n_invalid_pixels": 0,
    "silent_modules": [1],
    "efficiency": 0.0,
}
"""Of a run in which the second of two modules sends nothing."""
IN_WORDS = f"{N_IMAGES} images incomplete, {N_IMAGES * N_PACKETS} packets missing, nothing from module 1"
LOSSES_LINE = f"losses   {IN_WORDS}; efficiency 0.0%"


@pytest.fixture
def cli(service: Service) -> Cli:
    return Cli(service.rest_url)


def send_half(service: Service) -> None:
    """Send the images of a detector whose second module is dead."""
    Simulator(service.config, host=LOOPBACK, chaos=Chaos(silent=1)).send(N_IMAGES, rate_hz=50)


def lossy_run(service: Service, name: str) -> dict[str, Any]:
    file = str(service.output / name)
    service.post("/writer/write_async", {"output_file": file, "n_images": N_IMAGES})
    send_half(service)
    return service.wait_for("FINISHED")["acquisition"]


def newest_log(service: Service) -> dict[str, Any]:
    """Return the newest entry of the Redis stream, once it is there."""
    with redis.Redis(LOOPBACK, service.redis_port) as server:
        ((_, entries),) = server.xread({"daq:log": "0"}, block=2000) or [("", [])]
        assert entries, "nothing in daq:log"
        last: dict[str, Any] = json.loads(entries[-1][1][b"json"])
        return last


def test_rest_redis_and_the_log_have_the_numbers(start_service: StartService) -> None:
    service = start_service()
    run = lossy_run(service, "lossy.h5")
    assert run["message"] == "Completed."  # that is std_daq's
    assert KEYS.items() <= run["stats"].items()
    assert service.get("/daq/logs/1")["logs"] == [{**run, "reports": []}]
    assert newest_log(service) == {**run, "reports": []}
    with redis.Redis(LOOPBACK, service.redis_port) as server:  # daq:log was sent after these
        for stream in ("daq:status", "daq:writer_status"):
            ((_, fields),) = server.xrevrange(stream, count=1)
            assert json.loads(fields[b"json"])["acquisition"] == run
    line = service.logged("Completed.")
    assert " WARNING " in line
    assert f"{N_IMAGES} images; lost: {IN_WORDS}; efficiency 0.0%" in line


def test_the_commands_print_them(cli: Cli, service: Service) -> None:
    file = service.output / "printed.h5"
    started = cli.start("start", file, N_IMAGES)
    service.wait_for("WAITING_IMAGES")
    send_half(service)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err  # the run is complete, and nobody was strict
    assert LOSSES_LINE in out.splitlines()
    assert LOSSES_LINE in cli("status")[1].splitlines()
    (row,) = cli("logs", "-n", 1)[1].splitlines()
    assert f"FINISHED Completed. 5/5 images 5 incomplete, module 1 silent {file}" in " ".join(row.split())
    assert KEYS.items() <= cli.json("logs", "-n", 1)[0]["stats"].items()
    assert "\x1b" not in out + row


@pytest.mark.parametrize(("is_lossy", "code"), [(True, 4), (False, 0)])
def test_who_is_strict_gets_losses_as_exit_code_4(
    cli: Cli, service: Service, is_lossy: bool, code: int
) -> None:
    started = cli.start("start", "--strict", service.output / f"strict{code}.h5", N_IMAGES)
    service.wait_for("WAITING_IMAGES")
    if is_lossy:
        send_half(service)
    else:
        service.simulator().send(N_IMAGES, rate_hz=50)
    out, err = started.communicate(timeout=60)
    assert started.returncode == code, out + err
    assert ("losses   none; efficiency 100.0%" in out) != is_lossy


def test_a_stopped_run_is_not_completed_before_it_is_lossy(cli: Cli, service: Service) -> None:
    started = cli.start("start", "--strict", service.output / "strict_stopped.h5", 10 * N_IMAGES)
    service.wait_for("WAITING_IMAGES")
    send_half(service)
    service.wait_for_images(1)
    service.post("/writer/stop")
    started.communicate(timeout=60)
    assert started.returncode == 1


def test_strict_without_waiting_is_wrong_usage(cli: Cli, service: Service) -> None:
    code, _, err = cli("start", "--strict", "--no-wait", service.output / "never.h5", 1)
    assert code == 2
    assert "--strict is for who waits for the end of the run" in err
    assert not (service.output / "never.h5").exists()


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_losses_are_in_colour_on_a_terminal(
    service: Service, environment: dict[str, str], is_coloured: bool
) -> None:
    lossy_run(service, f"coloured{is_coloured}.h5")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ioc", "status", "-b", service.rest_url]
    without = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    shown = subprocess.run(command, stdout=theirs, timeout=60, env=without | environment)
    os.close(theirs)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert shown.returncode == 0
    assert (f"\x1b[33m{LOSSES_LINE}" in text) == is_coloured
    assert LOSSES_LINE in text


def test_failed_runs_are_in_the_list_and_in_the_status_of_a_restarted_service(
    start_service: StartService,
) -> None:
    service = start_service(first_image_timeout_s=0.2)
    cli = Cli(service.rest_url)
    file = str(service.output / "stopped.h5")
    service.post("/writer/write_async", {"output_file": file, "n_images": 3})
    stopped = service.post("/writer/stop")["writer"]["acquisition"]
    code, out, _ = cli("start", service.output / "none.h5", 1)
    assert code == 1
    assert "FAILED ERROR: no image came within 0.2 s" in out
    failed = service.status()["acquisition"]
    before = cli("logs")[1].splitlines()
    assert len(before) == 2
    assert "FAILED" in before[0]
    assert before[0].endswith("none.h5  " + failed["message"])
    assert service.get("/daq/logs/9")["logs"] == [{**stopped, "reports": []}]  # as std_daq has it
    assert service.end() == 0
    service.start()
    assert service.status() == {"state": "READY", "acquisition": failed}
    assert cli("logs")[1].splitlines() == before
    assert "FAILED ERROR: no image came" in cli("status")[1]
