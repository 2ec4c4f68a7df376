"""The command repair says what it did with each file, and its exit code whether all are readable."""

from __future__ import annotations

import functools
import os
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from daq_core.files.image_file import ImageFile
from daq_core.files.superblock import read_superblock
from ioc.program.main import app
from tests.processes import image_writer
from tests.processes.image_writer import RUN, STOP_TIME, append

ROOT = Path(__file__).parents[2]


def test_a_file_that_cannot_be_repaired_is_named_with_the_reason_and_exit_code_1(tmp_path: Path) -> None:
    text, missing = tmp_path / "notes.txt", tmp_path / "none.h5"
    text.write_text("not HDF5")
    result = CliRunner().invoke(app, ["repair", str(text), str(missing)])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        (
            f"{text} was not repaired: it is not an HDF5 file, "
            "or its writer ended before there was anything in it."
        ),
        f"{missing} was not repaired: No such file or directory.",
    ]
    assert text.read_text() == "not HDF5"


def test_the_file_of_a_killed_writer_is_readable_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with image_writer.start(path, "--hand-over", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate(timeout=20)
    result = CliRunner().invoke(app, ["repair", str(path)])
    assert result.exit_code == 0, result.stdout
    with h5py.File(path) as file:
        n_images = len(file["entry/data/data"])
    assert result.stdout == f"{path} is readable again, with {n_images} images.\n"
    again = CliRunner().invoke(app, ["repair", str(path)])
    assert (again.exit_code, again.stdout) == (0, f"{path} needs no repair.\n")


@functools.cache
def of_a_killed_writer() -> bytes:
    """Kill a writer, and return its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        with image_writer.start(path, "--hand-over", "1") as process:
            assert process.stdout is not None
            while int(process.stdout.readline() or -1) not in (-1, 4):
                pass
            process.kill()
            process.communicate(timeout=20)
        return path.read_bytes()


def left_open(path: Path) -> Path:
    """Put the file of a killed writer there."""
    path.write_bytes(of_a_killed_writer())
    return path


def said(command: str, path: Path) -> tuple[int, list[str]]:
    """Run a command on a file; return its exit code and the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ioc", command, str(path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_a_file_that_is_shorter_than_it_says_is_told_with_what_can_be_had(tmp_path: Path) -> None:
    """HDF5 in SWMR mode would wait for the rest for ever."""
    path = left_open(tmp_path / "a.h5")
    image_bytes = 48 * 64 * 2
    os.truncate(path, path.stat().st_size - image_bytes)
    code, lines = said("repair", path)
    assert (code, len(lines)) == (1, 1)
    assert re.search(
        r"was not repaired: it is cut off .* [1-9]\d* of its [1-9]\d* images are whole", lines[0]
    )
    code, lines = said("inspect", path)
    assert "Traceback" not in "".join(lines)
    assert len(lines) == 1 or code == 0


def test_a_file_that_says_it_is_far_longer_than_it_is_is_not_made_so(tmp_path: Path) -> None:
    path = left_open(tmp_path / "a.h5")
    size = path.stat().st_size
    with path.open("r+b") as file:
        block = read_superblock(file.fileno())
        file.write(replace(block, end_of_file=1 << 50).packed())
    for command in ("repair", "inspect"):
        code, (line,) = said(command, path)
        assert code == 1
        assert f"{size} bytes of the {1 << 50} that it says it has" in line
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", ["entry/run/state", "entry/run/counters", "entry/instrument/detector"])
@pytest.mark.parametrize("command", ["inspect", "repair"])
def test_what_a_damaged_file_lacks_is_one_line_and_no_traceback(
    tmp_path: Path, name: str, command: str
) -> None:
    path = left_open(tmp_path / "a.h5")
    assert CliRunner().invoke(app, ["repair", str(path)]).exit_code == 0
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = np.arange(3.0)  # something else under its name
    code, lines = said(command, path)
    assert "Traceback" not in "".join(lines)
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert code == (1 if command == "inspect" or name.endswith("state") else 0)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("entry/program_name", "version"), ("entry/data", "signal"), ("/", "default"), ("eiger", "NX_class")],
)
@pytest.mark.parametrize("value", [None, np.arange(3.0), b"\xff\xfe"], ids=["gone", "numbers", "no text"])
def test_a_damaged_attribute_is_no_traceback(
    tmp_path: Path, name: str, attribute: str, value: object
) -> None:
    path = tmp_path / "a.h5"
    file = ImageFile.create(path, shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 3)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    with h5py.File(path, "r+") as opened:
        del opened[name].attrs[attribute]
        if value is not None:
            opened[name].attrs[attribute] = value
    for command in ("inspect", "repair"):
        result = CliRunner().invoke(app, [command, str(path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert result.exit_code == 0 or len(result.output.splitlines()) == 1
        assert str(path) in result.output


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.night) for n in range(1, 12))])
def test_flipped_bits_are_told_in_a_line(tmp_path: Path, seed: int) -> None:
    """Whatever they hit: what is read is right, or refused."""
    path = left_open(tmp_path / "a.h5")
    whole = path.read_bytes()
    chance = random.Random(seed)
    for _ in range(3):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[chance.randrange(48, 6000)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        for command in ("inspect", "repair"):
            code, lines = said(command, path)
            assert "Traceback" not in "\n".join(lines)
            assert code in (0, 1, 2)
            assert len(lines) == 1 or code == 0
