"""A run is followed from anywhere: its bar, what it waits for, its end; one without images is given up."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.channel_access.epics_peer import EpicsPeer
from tests.processes.service import Service
from tests.system.test_cli import Cli

LIMIT_S = 60.0


@pytest.fixture
def cli(service: Service) -> Cli:
    return Cli(service.rest_url)


def begin(service: Service, name: str, n_images: int) -> Path:
    path = service.output / name
    answer = service.post("/writer/write_async", {"output_file": str(path), "n_images": n_images})
    assert answer["status"] == "ok", answer
    return path


class Terminal:
    """A command in a terminal of its own, and what can be read there."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ioc", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**cli.environment, "TERM": "xterm", "COLUMNS": "300"},
        )
        os.close(theirs)
        self.text = ""

    def until(self, words: str) -> None:
        """Read until these words have been shown."""
        deadline = time.monotonic() + LIMIT_S
        while words not in self.text:
            assert time.monotonic() < deadline, f"no {words!r} in {self.text!r}"
            if select.select([self._ours], [], [], 1.0)[0]:
                self.text += os.read(self._ours, 65536).decode(errors="replace")

    def end(self) -> int:
        """Read to the end; return the exit code."""
        try:
            while more := os.read(self._ours, 65536):
                self.text += more.decode(errors="replace")
        except OSError:  # the other end is closed
            pass
        os.close(self._ours)
        return self.process.wait(LIMIT_S)


def test_wait_ends_with_the_run_and_as_start_would(cli: Cli, service: Service) -> None:
    begin(service, "waited-for.h5", 5)
    process = cli.start("wait")
    service.simulator().send(5, rate_hz=50)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "run      FINISHED Completed." in out


def test_wait_for_a_run_that_is_over_tells_how_it_ended(cli: Cli, service: Service) -> None:
    begin(service, "over.h5", 5)
    service.post("/writer/stop")
    code, out, _ = cli("wait")
    assert code == 1
    assert "run      FINISHED Interrupted." in out


def test_wait_is_released_by_a_stop_with_the_exit_code_of_an_interrupted_run(
    cli: Cli, service: Service
) -> None:
    begin(service, "stopped.h5", 5)
    process = cli.start("wait", "--json")
    service.wait_for("WAITING_IMAGES")
    service.post("/writer/stop")
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert '"message": "Interrupted."' in out


def test_watch_shows_the_bar_of_a_run_that_somebody_else_started(cli: Cli, service: Service) -> None:
    begin(service, "watched.h5", 5)
    terminal = Terminal(cli, "watch")
    terminal.until("WAITING_IMAGES")
    terminal.until("0/5")
    service.simulator().send(5, rate_hz=50)
    assert terminal.end() == 0
    assert "FINISHED Completed." in terminal.text


def test_watch_without_a_run_says_so(cli: Cli, service: Service) -> None:
    begin(service, "last.h5", 1)
    service.simulator().send(1, rate_hz=50)
    service.wait_for("READY")
    code, out, err = cli("watch")
    assert code == 0
    assert err == "No run is going on; this was the last one.\n"
    assert "last.h5" in out


def test_a_start_with_a_timeout_stops_the_run_when_no_image_comes(cli: Cli, service: Service) -> None:
    code, out, err = cli("start", service.output / "silent.h5", 5, "--timeout", 0.5)
    assert code == 1
    assert err == "no new image for 0.5 s: the run was stopped\n"
    assert "run      FINISHED Interrupted." in out
    assert service.status()["state"] == "READY"


def test_a_timeout_counts_from_the_last_image(cli: Cli, service: Service) -> None:
    process = cli.start("start", service.output / "stalled.h5", 50, "--timeout", 1)
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(30, rate_hz=20)  # longer than the timeout
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "no new image for 1 s: the run was stopped" in err
    assert "images   30 of 50 written" in out


def test_a_run_that_gets_its_images_in_time_is_not_stopped(cli: Cli, service: Service) -> None:
    process = cli.start("start", service.output / "in-time.h5", 5, "--timeout", 30)
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(5, rate_hz=50)
    _, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (0, "")


def test_a_timeout_needs_somebody_who_waits(cli: Cli, service: Service) -> None:
    code, _, err = cli("start", service.output / "a.h5", 5, "--timeout", 5, "--no-wait")
    assert code == 2
    assert "--timeout is for who waits for the end of the run" in err


@pytest.mark.night
def test_what_a_run_waits_for_is_in_the_bar_in_status_on_channel_access_and_once_in_the_log(
    cli: Cli, service: Service
) -> None:
    """Its five seconds are too long for the ordinary suite; ``test_daq_waiting`` has all the sentences."""
    first, last = service.simulator().ports[0], service.simulator().ports[-1]
    silent = f"no packet on UDP {first} to {last} for 5 s"
    terminal = Terminal(cli, "start", str(service.output / "waiting.h5"), "5")
    terminal.until(silent)
    _, out, _ = cli("status")
    assert f"warning  {silent}" in out
    assert silent in service.get("/writer/status")["waiting"]
    with EpicsPeer(service.ca_port) as peer:
        assert silent in peer.text(service.prefix + "DAQ:Warning_RBV")
    service.simulator().send(5, rate_hz=50)
    assert terminal.end() == 0
    assert service.log().count(silent) == 1
    assert service.get("/writer/status")["waiting"] == ""
