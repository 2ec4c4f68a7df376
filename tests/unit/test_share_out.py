"""Tasks are shared out to forked processes: each is done once, by whoever is free; nobody stays behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from daq_core.kernels.share_out import share_out

N_HELPERS = 2


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_helpers_work_at_the_same_time_and_each_task_is_done_once(tmp_path: Path) -> None:
    def do(task: int) -> None:
        (tmp_path / f"{task}.{os.getpid()}").touch()
        while len({file.suffix for file in tmp_path.iterdir()}) <= N_HELPERS:
            time.sleep(0.001)  # until each process has one

    before = children()
    told = list(share_out(20, N_HELPERS, do))
    assert sorted(int(file.stem) for file in tmp_path.iterdir()) == list(range(20))
    assert told == sorted(told)
    assert told[-1] == 20
    assert children() == before


def test_without_helpers_all_is_done_here() -> None:
    done: list[int] = []
    assert list(share_out(3, 0, done.append)) == [1, 2, 3]
    assert done == [0, 1, 2]


def test_a_helper_that_dies_leaves_one_task_undone(tmp_path: Path) -> None:
    here = os.getpid()

    def do(task: int) -> None:
        if os.getpid() != here:
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while not (tmp_path / "died").exists():
            time.sleep(0.001)

    assert list(share_out(5, 1, do))[-1] == 4


def test_a_task_that_fails_in_a_helper_is_not_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = os.getpid()

    def do(task: int) -> None:
        if os.getpid() != here:
            (tmp_path / "failed").touch()
            raise ValueError(task)
        while not (tmp_path / "failed").exists():
            time.sleep(0.001)

    assert list(share_out(5, 1, do))[-1] == 4
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_ends_the_helpers() -> None:
    before, here = children(), os.getpid()

    def do(task: int) -> None:
        if os.getpid() == here:
            raise KeyboardInterrupt
        time.sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        list(share_out(2, 1, do))
    assert children() == before
