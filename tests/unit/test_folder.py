"""Folders that are made before a run: as many as allowed, and only where files may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from daq_core.control.folder import make_folders
from daq_core.errors import InvalidRequest


def test_missing_folders_are_made_up_to_the_number_allowed(tmp_path: Path) -> None:
    make_folders(f"{tmp_path}/a/b/", 2, [str(tmp_path)])
    assert (tmp_path / "a" / "b").is_dir()


def test_no_folder_is_made_when_more_are_missing(tmp_path: Path) -> None:
    make_folders(f"{tmp_path}/a/b/c/", 2, [str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_made_outside_of_the_roots(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with pytest.raises(InvalidRequest, match="outside"):
        make_folders(f"{tmp_path}/a/", 3, [str(tmp_path / "inside")])
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_link_out_of_the_roots_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidRequest, match="outside"):
        make_folders(f"{tmp_path}/inside/link/a/", 3, [str(tmp_path / "inside")])
    assert list((tmp_path / "outside").iterdir()) == []
