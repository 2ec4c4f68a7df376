"""The acquisition log keeps every run that ended, across restarts and crashes."""

from __future__ import annotations

import json
import logging
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from daq_core.errors import Unavailable
from daq_core.showing.journal import REMEMBERED, Begun, Journal
from daq_core.state.losses import Losses
from daq_core.state.status import Acquisition, AcquisitionState, WriteRequest

DONE = Acquisition(
    AcquisitionState.FINISHED,
    "Completed.",
    WriteRequest("/data/Röntgen 1.h5", 100, 1_700_000_000_000_000_000),
    n_write_requested=100,
    n_write_completed=100,
    start_time=1_700_000_000.25,
    stop_time=1_700_000_010.5,
)
FAILED = replace(DONE, state=AcquisitionState.FAILED, message="ERROR: full\u2028disk", n_write_completed=3)
NAMED = replace(DONE, request=WriteRequest("/data/b.h5", 0, "run µ"))


async def write(folder: Path, *acquisitions: Acquisition) -> None:
    journal = Journal(folder)
    for acquisition in acquisitions:
        journal.add(acquisition)
    await journal.close()


async def test_what_was_added_is_there_again_newest_first_with_its_types(tmp_path: Path) -> None:
    await write(tmp_path, DONE, FAILED, NAMED)
    journal = Journal(tmp_path)
    assert journal.newest_first() == (NAMED, FAILED, DONE)
    assert journal.total == 3
    await write(tmp_path, DONE)
    assert Journal(tmp_path).newest_first() == (DONE, NAMED, FAILED, DONE)


async def test_losses_are_kept_and_those_of_an_older_journal_are_not_known(tmp_path: Path) -> None:
    lossy = replace(DONE, losses=Losses(missing_packets=7, incomplete_images=3, silent_modules=(0, 5)))
    await write(tmp_path, lossy)
    assert Journal(tmp_path).newest_first() == (lossy,)
    path = tmp_path / "journal.jsonl"
    old = json.loads(path.read_text())
    del old["losses"]
    path.write_text(json.dumps(old) + "\n")
    await write(tmp_path, DONE)
    assert Journal(tmp_path).newest_first() == (DONE, replace(DONE, losses=None))


async def test_the_newest_are_seen_before_they_reach_the_disk() -> None:
    journal = Journal(None)
    journal.add(DONE)
    assert journal.newest_first() == (DONE,)
    assert journal.total == 1
    await journal.close()


async def test_a_torn_last_line_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await write(tmp_path, DONE, FAILED)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for n_lost in range(2, 40, 7):
        caplog.clear()
        path.write_bytes(whole[:-n_lost])
        assert Journal(tmp_path).newest_first() == (DONE,)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "journal.jsonl" in caplog.text


async def test_the_line_after_a_torn_one_is_not_lost(tmp_path: Path) -> None:
    await write(tmp_path, DONE, FAILED)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    await write(tmp_path, NAMED)
    assert Journal(tmp_path).newest_first() == (NAMED, DONE)


async def test_a_line_that_only_lost_its_end_of_line_is_kept(tmp_path: Path) -> None:
    await write(tmp_path, DONE)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    await write(tmp_path, FAILED)
    assert Journal(tmp_path).newest_first() == (FAILED, DONE)


@pytest.mark.parametrize(
    "line", [b"null", b"5", b"[]", b"{}", b'"x"', b"\xff\xfe", b'{"state": "LOST", "request": null}']
)
async def test_a_line_of_something_else_does_not_hide_the_others(tmp_path: Path, line: bytes) -> None:
    await write(tmp_path, DONE)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(line + b"\n")
    await write(tmp_path, FAILED)
    assert Journal(tmp_path).newest_first() == (FAILED, DONE)


async def test_memory_keeps_the_newest_and_the_file_all(tmp_path: Path) -> None:
    numbered = [replace(DONE, n_write_completed=n) for n in range(REMEMBERED + 5)]
    path = tmp_path / "journal.jsonl"
    await write(tmp_path, numbered[0])
    line = path.read_text()
    path.write_text(
        "".join(
            line.replace('"n_write_completed": 0', f'"n_write_completed": {n}') for n in range(REMEMBERED + 5)
        )
    )
    journal = Journal(tmp_path)
    assert journal.total == REMEMBERED + 5
    assert journal.newest_first() == tuple(reversed(numbered[5:]))


async def test_a_disk_that_refuses_is_logged_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "none")
    journal.add(DONE)
    await journal.close()
    assert journal.newest_first() == (DONE,)
    assert "journal.jsonl cannot be written: No such file" in caplog.text


async def test_what_a_full_disk_refused_is_written_with_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    await write(tmp_path, DONE)
    journal = Journal(tmp_path)
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    await journal.begin(BEGUN)
    journal.add(FAILED)
    await journal.begin(BEGUN)
    assert journal.trouble == f"the acquisition log {path} cannot be written: No space left on device"
    (tmp_path / "kept").replace(path)
    journal.add(NAMED)
    await journal.close()
    assert journal.trouble == ""
    assert Journal(tmp_path).newest_first() == (NAMED, FAILED, DONE)


@pytest.mark.parametrize("n_fitting", [1, 30, 200])
async def test_a_line_that_fits_only_partly_is_taken_back(tmp_path: Path, n_fitting: int) -> None:
    """The limit of this process's files stands in for a disk; the kernel writes up to it."""
    await write(tmp_path, DONE)
    path = tmp_path / "journal.jsonl"
    before, unlimited = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + n_fitting, unlimited[1]))
    try:
        journal.add(FAILED)
        await journal.begin(BEGUN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "File too large" in journal.trouble
    assert path.read_bytes() == before
    await journal.close()


def test_a_log_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(Unavailable, match=r"acquisition log .*journal\.jsonl cannot be read: Is a directory"):
        Journal(tmp_path)


BEGUN = Begun(WriteRequest("/data/c.h5", 5, "c"), 1_700_000_020.125, 1000, None)


async def test_a_run_that_began_and_has_no_end_is_known_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.begin(BEGUN)  # on the disk when this returns: nothing is closed here
    found = Journal(tmp_path)
    assert found.unended == (BEGUN,)
    assert (found.newest_first(), found.total) == ((), 0)
    await journal.close()


async def test_a_run_whose_end_is_recorded_is_not_taken_for_interrupted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    later = replace(BEGUN, start_time=BEGUN.start_time + 1)
    await journal.begin(BEGUN)
    await journal.begin(later)
    ended = replace(FAILED, request=BEGUN.request, start_time=BEGUN.start_time)
    journal.add(ended)
    await journal.close()
    assert Journal(tmp_path).unended == (later,)
    assert Journal(tmp_path).newest_first() == (ended,)


async def test_a_torn_note_of_a_beginning_hides_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(DONE)
    await journal.begin(BEGUN)
    await journal.close()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-15])
    await write(tmp_path, NAMED)
    assert Journal(tmp_path).newest_first() == (NAMED, DONE)
    assert Journal(tmp_path).unended == ()
