"""The space for the next run: of the folder that is expected, never an old answer of a disk that hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daq_core.showing import free_space
from daq_core.showing.free_space import UNKNOWN, FreeSpace


def look_until(space: FreeSpace, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "no answer came"
        space.look()
        time.sleep(0.01)


def free(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def test_nothing_is_asked_before_a_folder_is_expected() -> None:
    noted: list[int] = []
    space = FreeSpace("", noted.append)
    for _ in range(3):
        space.look()
    assert noted == []


def test_the_space_of_the_folder_that_is_expected_is_noted(tmp_path: Path) -> None:
    noted: list[int] = []
    space = FreeSpace(str(tmp_path), noted.append)
    look_until(space, lambda: bool(noted))
    assert noted[-1] == pytest.approx(free(tmp_path), rel=0.5)
    space.ask_of("")
    space.ask_of(str(tmp_path / "gone"))
    noted.clear()
    look_until(space, lambda: bool(noted))
    assert noted == [UNKNOWN]


def test_a_folder_that_only_its_user_may_enter_has_the_space_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "private" / "scan"
    inner.mkdir(parents=True)
    ask = os.statvfs

    def statvfs(folder: str) -> Any:
        if folder == str(inner):
            raise PermissionError
        return ask(folder)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert free_space.free_bytes(str(inner)) == pytest.approx(free(tmp_path), rel=0.5)


def test_a_disk_that_hangs_has_no_known_space_and_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, asked = threading.Event(), []
    ask = os.statvfs

    def statvfs(folder: str) -> Any:
        asked.append(folder)
        assert answered.wait(30)
        return ask(folder)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(free_space, "LOOK_S", 0.05)
    noted: list[int] = []
    space = FreeSpace(str(tmp_path), noted.append)
    look_until(space, lambda: len(noted) > 3)
    assert set(noted) == {UNKNOWN}
    assert len(asked) == 1
    answered.set()
    look_until(space, lambda: noted[-1] != UNKNOWN)
    assert noted[-1] == pytest.approx(free(tmp_path), rel=0.5)
