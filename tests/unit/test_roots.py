"""Attempts to have a file made, replaced, repaired or a folder made outside of the allowed roots."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from daq_core.control import folder
from daq_core.errors import InvalidRequest
from daq_core.files import repair, roots
from daq_core.files.image_file import ImageFile
from daq_core.files.output import check_output
from daq_core.files.roots import check_roots, opened_folder
from tests.processes.image_writer import RUN, append

SECRET = "somebody's data"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The allowed root, with a folder ``visit`` in it; beside it a folder ``outside``."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim.h5").write_text(SECRET)
    (tmp_path / "inside" / "visit" / "deep").mkdir(parents=True)
    return tmp_path / "inside"


def create(path: Path, root: Path, *, overwrite: bool = False) -> ImageFile:
    return ImageFile.create(
        str(path),
        shape=(48, 64),
        dtype=np.dtype("u2"),
        detector_name="eiger",
        run=RUN,
        overwrite=overwrite,
        roots=(str(root),),
    )


def swap(place: Path, target: Path) -> None:
    """Put a link in the place of a folder."""
    place.rename(place.with_name(place.name + "-was"))
    place.symlink_to(target)


def swapped_after_the_check(monkeypatch: pytest.MonkeyPatch, place: Path, target: Path) -> None:
    """Let an attacker win the race: the folder becomes a link the moment it was found to be good."""

    def check(folder: str, allowed: list[str]) -> str:
        real = check_roots(folder, allowed)
        swap(place, target)
        return real

    monkeypatch.setattr(roots, "check_roots", check)


def untouched(inside: Path) -> bool:
    outside = inside.parent / "outside"
    return os.listdir(outside) == ["victim.h5"] and (outside / "victim.h5").read_text() == SECRET


@pytest.mark.parametrize("place", ["visit", "visit/deep"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_becomes_a_link_after_the_check_does_not_lead_out(
    inside: Path, monkeypatch: pytest.MonkeyPatch, place: str, overwrite: bool
) -> None:
    (inside.parent / "outside" / "deep").mkdir()
    swapped_after_the_check(monkeypatch, inside / place, inside.parent / "outside")
    with pytest.raises(OSError, match="a part of it is not a folder any more"):
        create(inside / "visit" / "deep" / "victim.h5", inside, overwrite=overwrite)
    (inside.parent / "outside" / "deep").rmdir()
    assert untouched(inside)


def test_a_folder_that_was_a_link_all_along_is_refused_when_the_file_is_made_too(inside: Path) -> None:
    (inside / "door").symlink_to(inside.parent / "outside")
    with pytest.raises(OSError, match="is outside of what this service may write to"):
        create(inside / "door" / "a.h5", inside)
    assert untouched(inside)


def test_a_link_that_stays_inside_is_followed(inside: Path) -> None:
    (inside / "today").symlink_to("visit")
    file = create(inside / "today" / "a.h5", inside)
    file.close(state="FINISHED", message="", stop_time=0, counters={})
    assert (inside / "visit" / "a.h5").exists()


def keep_swapping(place: Path, target: Path, end: multiprocessing.synchronize.Event) -> None:
    was = place.with_name("was")
    while not end.is_set():
        place.rename(was)
        place.symlink_to(target)
        place.unlink()
        was.rename(place)


@pytest.mark.timeout(60)
def test_two_thousand_files_beside_somebody_who_swaps_the_folder_all_stay_inside(inside: Path) -> None:
    """Each is made inside, or refused, or its folder is missing at that moment."""
    outside, place = inside.parent / "outside", inside / "visit"
    end = multiprocessing.Event()
    attacker = multiprocessing.Process(target=keep_swapping, args=(place, outside, end))
    attacker.start()
    n_made = n_refused = 0
    try:
        for n in range(2000):
            try:
                with opened_folder(str(place), [str(inside)]) as descriptor:
                    os.close(os.open(f"{n}.h5", os.O_CREAT | os.O_EXCL, dir_fd=descriptor))
                n_made += 1
            except (InvalidRequest, FileNotFoundError):
                n_refused += 1
    finally:
        end.set()
        attacker.join()
    assert untouched(inside)
    assert n_made + n_refused == 2000
    assert n_made == len(list(place.glob("*.h5")))


def test_a_folder_is_not_made_behind_a_link_that_came_after_the_check(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped_after_the_check(monkeypatch, inside / "visit", inside.parent / "outside")
    with pytest.raises(InvalidRequest, match="not a folder any more"):
        folder.make_folders(str(inside / "visit" / "new" / "deep"), 3, [str(inside)])
    assert untouched(inside)


def test_a_new_folder_that_becomes_a_link_at_once_is_not_entered(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_mkdir = os.mkdir

    def mkdir(name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        real_mkdir(name, mode, dir_fd=dir_fd)
        if name == "new":
            swap(inside / "visit" / "new", inside.parent / "outside")

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="Not a directory"):
        folder.make_folders(str(inside / "visit" / "new" / "deep"), 3, [str(inside)])
    assert untouched(inside)


# ---- what may be overwritten


def test_a_file_with_a_second_name_is_not_overwritten(inside: Path) -> None:
    """A hard link inside would be a way to any file of the user's on that disk."""
    os.link(inside.parent / "outside" / "victim.h5", inside / "a.h5")
    with pytest.raises(InvalidRequest, match="it has other names too"):
        check_output(str(inside / "a.h5"), roots=[str(inside)], overwrite=True)
    with pytest.raises(OSError, match="it has other names too"):
        create(inside / "a.h5", inside, overwrite=True)
    assert untouched(inside)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_not_overwritten(inside: Path) -> None:
    """It would stay his, with our data in it."""
    path = inside / "a.h5"
    path.write_text(SECRET)
    os.chown(path, 54321, 54321)
    with pytest.raises(InvalidRequest, match="it belongs to user 54321, not to root"):
        check_output(str(path), roots=[str(inside)], overwrite=True)
    with pytest.raises(OSError, match="it belongs to user 54321, not to root"):
        create(path, inside, overwrite=True)
    assert path.read_text() == SECRET


# ---- repair


def killed(path: Path, n: int) -> Path:
    """Leave a file as a killed writer does, in a process that is."""
    pid = os.fork()
    if pid == 0:
        file = create(path, path.parent)
        append(file, n)
        os._exit(0)  # nothing is closed
    os.waitpid(pid, 0)
    return path


def test_a_file_outside_is_not_repaired(inside: Path) -> None:
    lost = killed(inside.parent / "outside" / "lost.h5", 3)
    (inside / "door").symlink_to(inside.parent / "outside")
    before = lost.read_bytes()
    with pytest.raises(InvalidRequest, match="is outside"):
        repair.repair(str(inside / "door" / "lost.h5"), roots=[str(inside)])
    assert lost.read_bytes() == before


@pytest.mark.parametrize("step", ["_inspect", "_record", "_end"])
def test_the_file_that_was_opened_is_repaired_whatever_its_name_leads_to_meanwhile(
    inside: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path, other = killed(inside / "a.h5", 3), killed(inside.parent / "outside" / "lost.h5", 2)
    before, act = other.read_bytes(), getattr(repair, step)

    def swapped(*arguments: object, **named: object) -> object:
        if not path.is_symlink():
            path.rename(inside / "was.h5")
            path.symlink_to(other)
        return act(*arguments, **named)

    monkeypatch.setattr(repair, step, swapped)
    report = repair.repair(str(path), roots=[str(inside)])
    assert (report.outcome, report.n_images) == ("repaired", 3)
    assert other.read_bytes() == before
    with h5py.File(inside / "was.h5") as file:
        assert (len(file["entry/data/data"]), file["entry/run/state"].asstr()[()]) == (3, "FAILED")
