"""The command repair says what it did with each file, and its exit code whether all are readable."""

from __future__ import annotations

from pathlib import Path

import h5py
from typer.testing import CliRunner

from ioc.cli import app
from tests import image_writer


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
