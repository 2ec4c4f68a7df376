"""What terminals and supervisors send: some of it ends the service, in order and once; some means nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from daq_core.processes.group_signals import SENT_TO_ALL
from tests.processes.service import END_WITHIN_S, JUNGFRAU_2, Service, command_line
from tests.system.test_serve import descendants

StartService = Callable[..., Service]

ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def take(service: Service, n_images: int = 1000) -> Path:
    """Start a run of which ten images are written."""
    file = service.output / "run.h5"
    answer = service.post("/writer/write_async", {"output_file": str(file), "n_images": n_images})
    assert answer["status"] == "ok", answer
    service.simulator().send(10, rate_hz=100)
    service.wait_for_images(10)
    return file


def assert_whole(file: Path, service: Service) -> None:
    """Demand that the file is closed, with all its images, and that the journal has the run's end."""
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 10
    journal = Path(str(service.options["state_dir"])) / "journal.jsonl"
    assert '"Interrupted."' in journal.read_text()


def test_what_a_group_is_sent_reaches_neither_receiver_nor_writer_nor_fork_server_nor_redis(
    start_service: StartService,
) -> None:
    service = start_service()
    file = take(service, 30)
    others = descendants(service.pid)
    assert len(others) >= 4  # a writer may come and go in a process of its own
    for pid in others:
        for signum in SENT_TO_ALL:
            os.kill(pid, signum)
    service.simulator().send(20, rate_hz=100, first_id=11)
    assert service.wait_for("FINISHED", "FAILED")["acquisition"]["message"] == "Completed."
    assert len(set(others) & set(descendants(service.pid))) >= 3  # fork server, receiver, Redis: the same
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 30
    assert service.end() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_all_processes_closes_the_running_file_first(
    start_service: StartService, signum: signal.Signals
) -> None:
    service = start_service()
    file = take(service)
    for pid in [*descendants(service.pid), service.pid]:
        os.kill(pid, signum)
    assert service.wait() == 0
    assert_whole(file, service)
    assert "Traceback" not in service.log()


def test_a_signal_that_means_nothing_here_changes_nothing(start_service: StartService) -> None:
    service = start_service()
    take(service)
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTTOU, signal.SIGRTMIN + 3):
        os.kill(service.pid, signum)
    assert service.status()["acquisition"]["state"] == "WRITING"
    assert service.end() == 0
    assert "SIGUSR1 is passed over" in service.log()


def test_the_same_signal_twice_as_timeout_sends_it_counts_once(start_service: StartService) -> None:
    service = start_service()
    file = take(service)
    for signum in (signal.SIGTERM, signal.SIGTERM, signal.SIGCONT, signal.SIGHUP, signal.SIGTERM):
        os.kill(service.pid, signum)
    assert service.wait() == 0
    assert_whole(file, service)


def test_a_signal_during_the_start_ends_it_in_order(tmp_path: Path) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    command = [sys.executable, "-m", "ioc", "serve", *command_line(service.options)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # what is said first is said before anything can be used
        process.send_signal(signal.SIGHUP)
        said = first + process.stderr.read()
        assert process.wait(END_WITHIN_S) == 0, said
    assert "Traceback" not in said


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    command = ["nohup", sys.executable, "-m", "ioc", "serve", *command_line(service.options)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY")
        file = take(service)
        process.send_signal(signal.SIGHUP)
        service.simulator().send(10, rate_hz=100, first_id=11)
        service.wait_for_images(20)
        assert service.post("/writer/stop")["status"] == "ok"
        process.terminate()
        assert process.wait(END_WITHIN_S) == 0
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 20


class Terminal:
    """A pseudo-terminal with a service on it, whose session it controls."""

    def __init__(self, command: list[str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.text = b""

    def read_until(self, words: bytes) -> None:
        while words not in self.text:
            self.text += os.read(self.master, 4096)


@pytest.mark.parametrize("in_a_shell", [False, True])
def test_a_terminal_that_is_closed_ends_the_service_in_order(tmp_path: Path, in_a_shell: bool) -> None:
    service = Service(tmp_path, JUNGFRAU_2, {})
    command = [sys.executable, "-m", "ioc", "serve", *command_line(service.options)]
    shell = ["/bin/sh", "-c", '"$@"; exit', "sh"] if in_a_shell else []
    terminal = Terminal([*shell, *command])
    try:
        terminal.read_until(b"READY")
        pid = descendants(terminal.process.pid)[0] if in_a_shell else terminal.process.pid
        with closed_when_gone(pid) as gone:
            file = take(service)
            os.close(
                terminal.master
            )  # the kernel tells the session's leader, and when that is gone its group
            assert gone.wait(END_WITHIN_S)
        code = terminal.process.wait(END_WITHIN_S)
    finally:
        terminal.process.kill()
    assert code == (-signal.SIGHUP if in_a_shell else 0)
    assert_whole(file, service)


class Gone:
    """The end of a process that need not be our child."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])


@contextlib.contextmanager
def closed_when_gone(pid: int) -> Iterator[Gone]:
    descriptor = os.pidfd_open(pid)
    try:
        yield Gone(descriptor)
    finally:
        os.close(descriptor)
