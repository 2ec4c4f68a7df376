"""What is at the path of a new file already: refused and kept, or replaced where that is wanted."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import pytest

from tests.processes import image_writer
from tests.processes.image_writer import append, assert_holds, close, create


def test_an_existing_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.h5 exists already"):
        create(path)
    assert path.read_text() == "precious"


def test_an_existing_file_is_replaced_when_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"old" * 1_000_000)
    file = create(path, overwrite=True)
    append(file, 1)
    close(file)
    with h5py.File(path) as reader:
        assert_holds(reader, 1)
    assert os.path.getsize(path) < 100_000


def test_overwrite_also_makes_new_files(tmp_path: Path) -> None:
    close(create(tmp_path / "a.h5", overwrite=True))
    assert h5py.is_hdf5(tmp_path / "a.h5")


def test_overwrite_spares_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with image_writer.start(path, "--n-images", "3", "--wait") as process:
        image_writer.wait_until_written(process, 3)
        with pytest.raises(FileExistsError, match="open elsewhere"):
            create(path, overwrite=True)
        process.communicate(timeout=20)
    with h5py.File(path) as reader:
        assert_holds(reader, 3)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "link", "broken link", "FIFO", "device"])
def test_only_a_regular_file_is_ever_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    path, target = tmp_path / "a.h5", tmp_path / "target"
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            target.write_text("precious")
            path.symlink_to(target)
        case "broken link":
            path.symlink_to(target)
        case "FIFO":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/null")
    with pytest.raises(OSError, match=str(path)):
        create(path, overwrite=overwrite)
    assert path.is_symlink() or not path.is_file()
    assert not target.exists() or target.read_text() == "precious"
