"""The files of several writers: how large each share is, and that the file over them holds what they hold."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daq_core.files.image_file import ImageFile
from daq_core.files.layout import COLUMNS
from daq_core.files.parts import make_virtual_file, part_path, repair_run, share_of
from tests.processes.image_writer import RUN, STOP_TIME, images, rows
from tests.processes.impatient_reader import impatient_reader

SHAPE = (2, 8)


def write_parts(
    path: Path,
    lengths: Sequence[int],
    run_id: int = 1,
    n_writers: int = 0,
    messages: Sequence[str] = (),
) -> None:
    """Write the parts of a run, each with so many of its images; `messages`: how each says that it ended."""
    n_writers = n_writers or len(lengths)
    for number, length in enumerate(lengths):
        run = replace(RUN, run_id=run_id, writer=number, n_writers=n_writers)
        file = ImageFile.create(
            part_path(str(path), number), shape=SHAPE, dtype=np.dtype("u2"), detector_name="eiger", run=run
        )
        mine = [number + i * n_writers for i in range(length)]
        if mine:
            columns = [np.concatenate(column) for column in zip(*(rows(i, 1) for i in mine), strict=True)]
            file.append([images(i, 1, SHAPE)[0] for i in mine], *columns)
        message = messages[number] if messages else "Completed."
        file.close(state="FINISHED", message=message, stop_time=STOP_TIME, counters={})


@given(n_images=st.integers(0, 200), n_writers=st.integers(1, 64))
def test_shares_add_up_and_differ_by_one_at_most(n_images: int, n_writers: int) -> None:
    shares = [share_of(n_images, number, n_writers) for number in range(n_writers)]
    assert shares == [len(range(number, n_images, n_writers)) for number in range(n_writers)]


@pytest.mark.parametrize(
    ("path", "first"),
    [("/d/run7.h5", "/d/run7_0.h5"), ("/d.x/run7", "/d.x/run7_0"), ("/d/a.b.h5", "/d/a.b_0.h5")],
)
def test_parts_are_named_after_the_run(path: str, first: str) -> None:
    assert part_path(path, 0) == first


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 5), min_size=2, max_size=4))
def test_the_file_over_the_parts_has_what_they_have_in_the_runs_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    """Also when one of them was lost in the middle of the run."""
    path = tmp_path_factory.mktemp("parts") / "run.h5"
    write_parts(path, lengths)
    make_virtual_file(str(path), detector_name="eiger")
    n_writers = len(lengths)
    there = sorted(number + i * n_writers for number, length in enumerate(lengths) for i in range(length))
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data["data"].shape == (len(there), *SHAPE)
        assert data["present"][()].tolist() == [1] * len(there)
        for row, index in enumerate(there):
            np.testing.assert_array_equal(data["data"][row], images(index, 1, SHAPE)[0])
            for name, column in zip(COLUMNS, rows(index, 1), strict=True):
                assert data[name][row] == column[0]


def test_files_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    """An old run of more writers has left its last file behind."""
    path = tmp_path / "run.h5"
    write_parts(path, [2, 2, 2], run_id=1)
    for number in range(2):
        Path(part_path(str(path), number)).unlink()
    write_parts(path, [1, 1], run_id=2)
    report = repair_run(str(path))
    assert (report.outcome, report.n_images) == ("repaired", 2)
    assert report.end is not None
    assert (report.end.run_id, report.end.state) == ("2", "FINISHED")


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (0, 1)])
def test_a_stopped_run_is_interrupted_although_one_writer_had_its_share(
    tmp_path: Path, lengths: tuple[int, int]
) -> None:
    """Found by torture: a run of one image, stopped without any; the second writer's share of it is none."""
    path = tmp_path / "run.h5"
    for messages in (("Interrupted.", "Completed."), ("Completed.", "Interrupted.")):
        write_parts(path, lengths, messages=messages)
        end = make_virtual_file(str(path), detector_name="eiger")
        assert (end.state, end.message) == ("FINISHED", "Interrupted.")
        with h5py.File(path) as file:
            assert file["entry/run/message"].asstr()[()] == "Interrupted."
        for made in tmp_path.iterdir():
            made.unlink()


def test_readers_who_look_for_the_file_do_not_disturb_its_making(tmp_path: Path) -> None:
    """Found by torture: a reader's lock, taken when the file was just made, failed the finished run."""
    paths = [tmp_path / f"run{i}.h5" for i in range(40)]
    for path in paths:
        write_parts(path, [2, 1])
    with impatient_reader(paths):
        for path in paths:
            make_virtual_file(str(path), detector_name="eiger")
    for path in paths:
        with h5py.File(path) as file:
            assert len(file["entry/data/data"]) == 3


def test_what_somebody_has_open_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    """A part, or the file over them that was not finished; the report says it, not only its message."""
    path = tmp_path / "run.h5"
    write_parts(path, [1, 1])
    path.write_bytes(b"unfinished")
    for held in (path, Path(part_path(str(path), 1))):
        with held.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            report = repair_run(str(path))
        assert (report.outcome, report.path) == ("open elsewhere", str(path))
    report = repair_run(str(path))
    assert (report.outcome, report.n_images) == ("repaired", 2)


def test_a_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    write_parts(path, [1, 1])
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"run\.h5 exists already"):
        make_virtual_file(str(path), detector_name="eiger")
    assert path.read_text() == "precious"


def test_without_parts_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none of its parts can be read"):
        make_virtual_file(str(tmp_path / "run.h5"), detector_name="eiger")
    assert not (tmp_path / "run.h5").exists()


def test_a_reader_of_nexus_and_of_std_daq_finds_the_images(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    write_parts(path, [2, 2])
    make_virtual_file(str(path), detector_name="eiger")
    with h5py.File(path) as file:
        assert next(iter(file)) == "eiger"
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        assert data[data.attrs["signal"]] == file["eiger/data"]
        assert data["data"].attrs["interpretation"] == "image"
        assert data["timestamp"].attrs["units"] == "s"
        assert "present" not in entry["run"]
