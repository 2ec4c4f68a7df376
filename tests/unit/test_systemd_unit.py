"""The service file for systemd: systemd finds nothing wrong, its paths and options fit together."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from ioc.program.main import app
from ioc.serve import RESTART

UNIT = Path(__file__).parents[2] / "examples/std-daq-ioc.service"
PROGRAM = "/opt/std-daq-ioc/.venv/bin/std-daq-ioc"
ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are written
    parser.read_string(UNIT.read_text(encoding="utf-8").replace("\\\n", " "))
    return parser


def command(unit: configparser.ConfigParser) -> list[str]:
    return shlex.split(unit["Service"]["ExecStart"])


@pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze, of the package systemd")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    assert ANALYZE is not None
    program = shutil.which("true")
    assert program is not None
    copy = tmp_path / UNIT.name  # verify wants a program that is there
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, program), encoding="utf-8")
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not complaints
    assert done.returncode == 0, done.stderr


def test_its_command_has_options_that_serve_has(unit: configparser.ConfigParser) -> None:
    words = command(unit)
    assert words[:2] == [PROGRAM, "serve"]
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]  # it is a group
    known = {name for param in serve.params for name in param.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_where_it_writes_is_writable_in_the_sandbox(unit: configparser.ConfigParser) -> None:
    words, service = command(unit), unit["Service"]
    assert service["ProtectSystem"] == "strict"
    assert words[words.index("--output-root") + 1] in service["ReadWritePaths"].split()
    assert words[words.index("--state-dir") + 1] == f"/var/lib/{service['StateDirectory']}"


def test_it_waits_for_ready_and_watches_the_loop(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 10  # the loop may be late for seconds, and is no hang
    assert service["RestartPreventExitStatus"] == "2"
    assert set(service["AmbientCapabilities"].split()) <= set(service["CapabilityBoundingSet"].split())


def test_sysreset_is_a_restart_and_no_failure(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartForceExitStatus"] == service["SuccessExitStatus"] == str(RESTART)


def test_it_has_the_powers_that_the_service_uses_and_no_other(unit: configparser.ConfigParser) -> None:
    wanted = {"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_NICE"}
    assert set(unit["Service"]["CapabilityBoundingSet"].split()) == wanted
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Service"]["SystemCallFilter"] == "@system-service"
