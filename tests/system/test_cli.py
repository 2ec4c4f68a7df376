"""The commands of ``std-daq-ioc`` as people and scripts use them, against a running service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from daq_core.config import DaqConfig
from ioc.program.ports import LOOPBACK
from tests.processes.service import Service


class Cli:
    """Runs the program; ``cli("status")`` is ``std-daq-ioc status``, spoken to one service."""

    def __init__(self, url: str) -> None:
        self.environment = {**os.environ, "STD_DAQ_API_URL": url}

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ioc", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            preexec_fn=_mind_ctrl_c,
        )

    def json(self, *arguments: object) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


def _mind_ctrl_c() -> None:
    """A shell that runs the tests in the background has them ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def cli(service: Service) -> Cli:
    return Cli(service.rest_url)


@pytest.fixture
def nowhere() -> Cli:
    return Cli(f"http://{LOOPBACK}:9")


def test_status_tells_people_and_scripts_the_same(cli: Cli, service: Service) -> None:
    code, out, _ = cli("status")

    assert code == 0
    assert out.splitlines()[0].split() == ["state", "READY"]
    assert cli.json("status") == service.status()


def test_start_waits_until_the_file_is_closed(cli: Cli, service: Service) -> None:
    file = service.output / "waited.h5"
    process = cli.start("start", file, 10, "--run-id", "night shift")
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(10, rate_hz=50)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert "10 of 10 written" in out
    assert "night shift" in out
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 10


def test_start_without_waiting_returns_while_the_run_goes_on(cli: Cli, service: Service) -> None:
    file = service.output / "not_waited.h5"
    started = cli.json("start", file, 10, "--no-wait", "--run-id", 42)

    assert started["state"] == "WRITING"
    assert started["acquisition"]["info"] == {"n_images": 10, "output_file": str(file), "run_id": 42}
    code, out, _ = cli("stop")
    assert code == 0
    assert "FINISHED Interrupted." in out


def test_a_stopped_run_is_not_a_success_for_who_waits(cli: Cli, service: Service) -> None:
    waiting = cli.start("start", service.output / "stopped.h5", 10, "--json")
    service.wait_for("WAITING_IMAGES")
    service.post("/writer/stop")
    out, _ = waiting.communicate(timeout=60)

    assert waiting.returncode == 1
    assert json.loads(out)["acquisition"]["message"] == "Interrupted."


def test_who_starts_during_a_run_is_told_which_since_when_and_how_to_end_it(
    cli: Cli, service: Service
) -> None:
    file = service.output / "first.h5"
    service.post("/writer/write_async", {"output_file": str(file), "n_images": 10})
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(3, rate_hz=50)
    service.wait_for_images(3)
    code, out, err = cli("start", service.output / "second.h5", 10)

    began = time.strftime("%Y-%m-%d ", time.localtime(service.status()["acquisition"]["stats"]["start_time"]))
    assert (code, out) == (1, "")
    assert err.startswith(f"std-daq-ioc: A run is going on: {file}, 3 of 10 images, since {began}")
    assert err.endswith("end it: std-daq-ioc stop.\n")
    assert len(err.splitlines()) == 1
    refused = service.logged("write_async", "-> error")
    assert f"A run into {file} is going on" in refused
    assert "{'state'" not in err + refused


def test_ctrl_c_leaves_the_run_going_and_says_how_to_stop_it(cli: Cli, service: Service) -> None:
    waiting = cli.start("start", service.output / "left.h5", 10)
    service.wait_for("WAITING_IMAGES")
    time.sleep(0.3)  # the client has the answer and waits
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)

    assert waiting.returncode == 130
    assert "std-daq-ioc stop" in err
    assert "Traceback" not in err
    assert service.status()["state"] == "WRITING"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("relative.h5", 10), 'Path must be absolute - starts with "/"'),
        (("/nowhere/at/all/run.h5", 10), "Output file folder /nowhere/at/all does not exist"),
        (("/tmp/run.h5", 0), "Must be an integer >= 1"),
    ],
)
def test_a_refused_start_is_one_line_and_exit_code_1(
    cli: Cli, service: Service, arguments: tuple[object, ...], words: str
) -> None:
    before = service.status()
    code, out, err = cli("start", *arguments)

    assert (code, out) == (1, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert service.status() == before


def test_stopping_an_idle_daq_is_a_success(cli: Cli) -> None:
    assert cli("stop")[0] == 0


def test_config_is_changed_by_key_and_is_in_effect_when_it_returns(cli: Cli, service: Service) -> None:
    code, out, err = cli("config", "image_timeout_s=0.25", "log_level=debug")

    assert code == 0, err
    assert service.status()["state"] == "READY"
    shown = json.loads(out)
    assert (shown["image_timeout_s"], shown["log_level"]) == (0.25, "debug")
    assert shown == cli.json("config")


def test_config_is_changed_by_a_file(cli: Cli, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "changes.json"
    file.write_text(json.dumps({"image_timeout_s": 0.75}))

    code, _, err = cli("config", file)

    assert code == 0, err
    assert service.get("/daq/config")["config"]["image_timeout_s"] == 0.75


def test_keys_over_a_file_win(cli: Cli, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "changes.json"
    file.write_text(json.dumps({"image_timeout_s": 0.75, "log_level": "error"}))
    code, _, err = cli("config", file, "image_timeout_s=0.6")
    assert code == 0, err
    config = service.get("/daq/config")["config"]
    assert (config["image_timeout_s"], config["log_level"]) == (0.6, "error")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compresion=bitshuffle-lz4",), "no config has compresion (is compression meant?)"),
        (("image_timeout_s=0.3", "zoom=1"), "no config has zoom"),
        (("image_timeout_s=0.3", "image_timeout_s=0.4"), "image_timeout_s is given twice"),
        (('{"compresion": 1}',), "no config has compresion (is compression meant?)"),
        (('{"image_timeout_s": 0.3, "image_timeout_s": 0.4}',), "the key image_timeout_s is given twice"),
    ],
)
def test_a_mistyped_key_is_refused_with_the_nearest_and_changes_nothing(
    cli: Cli, service: Service, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    if arguments[0].startswith("{"):
        (tmp_path / "changes.json").write_text(arguments[0])
        arguments = (str(tmp_path / "changes.json"),)
    before = service.get("/daq/config")
    code, out, err = cli("config", *arguments)
    assert (code, out) == (2, "")
    assert words in " ".join(err.replace("│", " ").split())
    assert service.get("/daq/config") == before


def test_keys_of_std_daq_alone_are_taken_and_named(cli: Cli, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "std_daq.json"
    file.write_text(json.dumps({"image_timeout_s": 0.65, "only_std_daq": 1}))
    code, _, err = cli("config", file)
    assert code == 0
    assert "Warning: keys that no config has are ignored: only_std_daq." in err
    assert service.get("/daq/config")["config"]["image_timeout_s"] == 0.65


def test_a_refused_config_says_why_and_changes_nothing(cli: Cli, service: Service) -> None:
    before = service.get("/daq/config")["config"]
    code, _, err = cli("config", "bit_depth=7")

    assert code == 1
    assert "bit_depth 7" in err
    assert service.get("/daq/config")["config"] == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "bit_depth"),
        ("config", "=8"),
        ("start", "/tmp/x.h5"),
        ("start", "/tmp/x.h5", "ten"),
        ("logs", "-n", "0"),
        ("stats", "--wrong"),
        ("explode",),
        ("simulate", "--images", "1"),
        ("replay",),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(nowhere: Cli, arguments: tuple[str, ...]) -> None:
    code, out, err = nowhere(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("std-daq-ioc: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "stop", "config", "logs", "stats"])
def test_without_a_service_the_exit_code_is_3(nowhere: Cli, command: str) -> None:
    code, out, err = nowhere(command)

    assert (code, out) == (3, "")
    assert "No service at" in err
    assert "STD_DAQ_API_URL" in err
    assert len(err.splitlines()) == 1


def test_client_commands_go_to_the_rest_port_of_the_environment(service: Service, nowhere: Cli) -> None:
    """One file of settings for `serve` and for who asks it."""
    elsewhere = nowhere.environment.pop("STD_DAQ_API_URL")
    nowhere.environment["STD_DAQ_REST_PORT"] = service.rest_url.rpartition(":")[2]
    assert nowhere("status")[0] == 0
    assert nowhere("status", "-b", elsewhere)[0] == 3  # what is said on the command line comes first
    nowhere.environment["STD_DAQ_REST_PORT"] = "5000/tcp"
    code, _, err = nowhere("status")
    assert (code, err.count("\n")) == (2, 1)
    assert "STD_DAQ_REST_PORT is '5000/tcp'" in err


def test_logs_lists_the_last_runs_newest_first(cli: Cli, service: Service) -> None:
    files = [str(service.output / f"log{i}.h5") for i in range(2)]
    for file in files:
        service.post("/writer/write_async", {"output_file": file, "n_images": 5})
        service.post("/writer/stop")

    listed = cli.json("logs", "-n", 2)
    assert [run["info"]["output_file"] for run in listed] == files[::-1]
    assert len(cli("logs", "-n", 1)[1].splitlines()) == 1


def test_stats_show_detector_and_writer(cli: Cli) -> None:
    assert set(cli.json("stats")) == {"detector", "writer"}
    assert [line.split()[0] for line in cli("stats")[1].splitlines()] == ["detector", "writer"]


def test_simulate_sends_what_the_simulator_of_that_seed_sends(cli: Cli, service: Service) -> None:
    file = service.output / "simulated.h5"
    service.post("/writer/write_async", {"output_file": str(file), "n_images": 5})
    options = ("--config", service.config_file, "--rate", 20, "--images", 5, "--first-id", 100, "--seed", 3)
    report = cli.json("simulate", *options)
    service.wait_for("FINISHED")

    assert (report["n_images"], report["n_packets"]) == (5, 5 * 2 * 128)
    simulator = service.simulator(seed=3)
    with h5py.File(file) as written:
        assert written["entry/data/image_id"][:].tolist() == [100, 101, 102, 103, 104]
        for image_id, image in zip(range(100, 105), written["entry/data/data"], strict=True):
            np.testing.assert_array_equal(image, simulator.image(image_id))


def test_what_was_recorded_can_be_replayed_into_the_service(
    cli: Cli, service: Service, tmp_path: Path, wait_until_bound: Callable[[int], None]
) -> None:
    offset = 300  # the service has the config's own ports
    folder = tmp_path / "recording"
    recording = cli.start(
        *("record", folder, "--config", service.config_file, "--images", 3, "--json"),
        *("--port-offset", offset, "--udp-host", LOOPBACK),
    )
    wait_until_bound(service.config.start_udp_port + offset)
    wait_until_bound(service.config.start_udp_port + offset + 1)
    cli.json(
        "simulate", "--config", service.config_file, "--rate", 20, "--images", 3, "--port-offset", offset
    )
    out, err = recording.communicate(timeout=60)
    assert recording.returncode == 0, err
    assert json.loads(out)["n_images"] == 3
    assert DaqConfig.load(folder / "config.json") == service.config

    file = service.output / "replayed.h5"
    service.post("/writer/write_async", {"output_file": str(file), "n_images": 6})
    report = cli.json("replay", folder, "--rate", 20, "--loops", 2)
    service.wait_for("FINISHED")
    assert report["n_images"] == 6
    simulator = service.simulator()
    with h5py.File(file) as written:
        assert written["entry/data/image_id"][:].tolist() == [1, 2, 3, 4, 5, 6]
        for i, image in enumerate(written["entry/data/data"]):
            np.testing.assert_array_equal(image, simulator.image(1 + i % 3))


def test_a_folder_that_is_no_recording_is_one_clear_line(nowhere: Cli, tmp_path: Path) -> None:
    code, _, err = nowhere("replay", tmp_path)

    assert code == 1
    assert f"{tmp_path} is not a recording" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["serve", "simulate", "replay", "record", "start", "demo", "status"])
def test_every_command_explains_itself(nowhere: Cli, command: str) -> None:
    code, out, err = nowhere(command, "--help")

    assert (code, err) == (0, "")
    assert f"Usage: std-daq-ioc {command}" in out


@pytest.fixture
def wait_until_bound() -> Callable[[int], None]:
    """Wait until some process receives on a UDP port."""

    def wait(port: int) -> None:
        deadline = time.monotonic() + 60
        while f":{port:04X} " not in Path("/proc/net/udp").read_text():
            assert time.monotonic() < deadline, f"nobody listens on UDP port {port}"
            time.sleep(0.02)

    return wait
