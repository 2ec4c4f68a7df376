"""The file with a service's secret: who may read it, and what it may hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daq_core.errors import Unavailable
from daq_core.token_file import TOKEN, read_token
from tests.machine.judges import absent

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A token file as it should be."""
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_a_token_is_one_line_that_only_its_owner_can_read(path: Path) -> None:
    assert read_token(path) == SECRET
    path.chmod(0o400)
    assert read_token(path) == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o644, 0o666, 0o601])
def test_a_file_that_is_open_to_others_is_refused_with_the_cure(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(Unavailable, match=f"mode {mode:04o}.*chmod 600 {path}"):
        read_token(path)


def test_another_users_file_is_refused(path: Path) -> None:
    if os.geteuid() != 0:
        absent("root", "makes another user's file")
    os.chown(path, 54321, 54321)
    with pytest.raises(Unavailable, match="belongs to user 54321"):
        read_token(path)


def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, why in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(Unavailable, match=f"{why}.*openssl rand"):
            read_token(path)


@pytest.mark.parametrize(
    "text", ["", "\n", "short", SECRET + "\n" + SECRET, SECRET + " x", "a b" * 20, "ü" * 20]
)
def test_what_is_no_token_is_refused_and_not_repeated(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(Unavailable, match="holds no token") as refused:
        read_token(path)
    assert not text.strip() or text not in str(refused.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=2000))
def test_any_bytes_are_a_token_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        token = read_token(path)
    except Unavailable:
        return
    assert TOKEN.fullmatch(token)
