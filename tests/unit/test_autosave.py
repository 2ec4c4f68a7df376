"""What autosave makes of the file it finds: it never stops a start, and nothing is thrown away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ioc.service.autosave import Autosave


def test_without_a_file_there_is_nothing_to_restore(tmp_path: Path) -> None:
    state = Autosave(tmp_path).state
    assert (state.status, state.text, state.last_save, state.n_starts) == (
        "OK",
        "nothing to restore",
        None,
        1,
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"version": 1, "settings": {"DAQ:NIm',
        b"[]",
        b"\0" * 4096,
        b"[" * 100_000,
        b'{"settings": 1}',
        b"\xff",
    ],
    ids=["empty", "torn", "list", "zeros", "deep", "other form", "no UTF-8"],
)
def test_a_file_that_cannot_be_read_is_kept_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    state = Autosave(tmp_path).state
    assert (state.status, state.text) == ("Warning", "settings.json could not be read")
    assert (tmp_path / "settings.bad.json").read_bytes() == content
    assert not (tmp_path / "settings.json").exists()
    assert "it is kept as settings.bad.json" in caplog.text


def test_a_folder_in_its_place_stops_no_start(tmp_path: Path) -> None:
    (tmp_path / "settings.json").mkdir()
    assert Autosave(tmp_path).state.status == "Warning"


@pytest.mark.parametrize(
    ("kept", "n_starts"),
    [
        ({"version": 1, "starts": 6}, 7),
        ({"version": 99, "starts": 6, "news": [1]}, 7),
        ({}, 1),
        ({"starts": "many"}, 1),
        ({"starts": -5}, 1),
        ({"starts": 10**400}, 1),
    ],
)
def test_a_file_of_another_version_is_understood_as_far_as_it_goes(
    tmp_path: Path, kept: dict[str, Any], n_starts: int
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"DAQ:NImages": 5}, **kept}))
    state = Autosave(tmp_path).state
    assert (state.status, state.n_starts) == ("OK", n_starts)
    assert state.last_save == pytest.approx((tmp_path / "settings.json").stat().st_mtime)


def test_fresh_counts_the_start_but_restores_nothing(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"starts": 3, "settings": {"DAQ:NImages": 5}}))
    state = Autosave(tmp_path, fresh=True).state
    assert (state.status, state.text, state.n_starts) == ("OK", "not restored: --fresh", 4)
