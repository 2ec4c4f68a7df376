"""Nobody reads what the service says (Ctrl-S, a stopped ``tee``): it goes on, and ends when it is told to."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import h5py

from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.processes.service import END_WITHIN_S, JUNGFRAU_2, Service, command_line

PIPE_BYTES = 4096  # the least a pipe can hold


def test_rest_channel_access_runs_and_the_end_wait_for_no_reader_of_the_log(tmp_path: Path) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with subprocess.Popen(
        [sys.executable, "-m", "ioc", "serve", *command_line(service.options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    ) as process:
        os.close(writing)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY")
        for _ in range(60):  # each is a line of 250 bytes: more than the pipe holds
            refused = service.post("/writer/write_async", {"output_file": f"/no/{'x' * 200}", "n_images": 1})
            assert refused["status"] == "error"
        with EpicsPeer(service.ca_port) as peer:  # each put is a line of the log, too
            assert peer.put(service.prefix + "DAQ:Stop", 1) == ECA_NORMAL
            assert peer.text(service.prefix + "DAQ:State_RBV") == "READY"
        file = service.output / "run.h5"
        service.post("/writer/write_async", {"output_file": str(file), "n_images": 1000})
        service.simulator().send(10, rate_hz=100)
        service.wait_for_images(10)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(END_WITHIN_S) == 0
        finally:
            process.kill()
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 10
    assert os.read(reading, 1 << 16).count(b"\n") >= 10  # what the pipe held is there still, line by line
    os.close(reading)


def test_ctrl_s_in_the_terminal_stops_the_lines_and_nothing_else(tmp_path: Path) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ioc", "serve", *command_line(service.options)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    ) as process:
        os.close(slave)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY")
        os.write(master, b"\x13")  # Ctrl-S
        for _ in range(20):
            refused = service.post("/writer/write_async", {"output_file": "/no/where", "n_images": 1})
            assert refused["status"] == "error"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(END_WITHIN_S) == 0
        finally:
            process.kill()
    os.close(master)


def test_a_service_whose_stderr_is_closed_starts_and_ends(tmp_path: Path) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    command = [sys.executable, "-m", "ioc", "serve", *command_line(service.options)]
    with subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY")
        process.terminate()
        assert process.wait(END_WITHIN_S) == 0
