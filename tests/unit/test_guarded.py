"""Work in a child with a deadline: what it gives, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from daq_core.errors import InvalidRequest
from daq_core.files.guarded import NotDone, guarded

ROOT = Path(__file__).parents[2]


def wait_for_ever() -> None:
    """Be a library that hangs."""
    while True:
        time.sleep(1)


def die() -> None:
    """Be a library that crashes."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise InvalidRequest("not like this")


def note_and_wait(file: Path) -> None:
    file.write_text(str(os.getpid()))
    wait_for_ever()


def pid_in(file: Path) -> int:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(file.read_text())


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_a_result_comes_back_however_large() -> None:
    assert len(guarded(lambda: b"x" * 3_000_000, 60)) == 3_000_000


def test_it_works_where_the_kernel_takes_children_away_by_itself() -> None:
    """As in every process of the fork server."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert guarded(lambda: 7, 60) == 7
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(InvalidRequest, match="not like this"):
        guarded(refuse, 60)


def test_a_child_that_does_not_answer_is_killed_at_the_deadline(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    with pytest.raises(NotDone, match=r"not done within 2 s"):
        guarded(lambda: note_and_wait(noted), 2)
    wait_until_gone(pid_in(noted))


def test_a_child_that_dies_says_of_what() -> None:
    with pytest.raises(NotDone, match="SIGKILL"):
        guarded(die, 60)


def test_a_child_whose_work_nobody_wants_any_more_is_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    ours, theirs = socket.socketpair()

    def leave() -> None:
        pid_in(noted)
        ours.shutdown(socket.SHUT_RDWR)  # the child has a copy of this end

    leaving = threading.Thread(target=leave)
    leaving.start()
    with theirs, pytest.raises(NotDone):
        guarded(lambda: note_and_wait(noted), 60, wanted_by=theirs)
    leaving.join()
    ours.close()
    wait_until_gone(pid_in(noted))


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    code = f"""
from pathlib import Path
from daq_core.files.guarded import guarded
from tests.unit.test_guarded import note_and_wait
guarded(lambda: note_and_wait(Path({str(noted)!r})), 600)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        child = pid_in(noted)
        parent.kill()
    wait_until_gone(child)
