"""Work for a disk is done in order by a thread that neither the loop nor the end of the program waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from daq_core.linux.disk_thread import DiskThread


async def test_work_is_done_in_its_order_and_all_of_it_at_the_end() -> None:
    disk, done = DiskThread("disk"), list[int]()
    for n in range(100):
        disk.submit(lambda n=n: done.append(n))  # type: ignore[misc]
    assert await disk.finish(30)
    assert done == list(range(100))


async def test_without_work_there_is_no_thread() -> None:
    before = threading.active_count()
    assert await DiskThread("disk").finish(0)
    assert threading.active_count() == before


async def test_work_that_raises_is_logged_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    disk, done = DiskThread("disk"), list[int]()
    await asyncio.wrap_future(disk.submit(lambda: [][0]))
    await asyncio.wrap_future(disk.submit(lambda: done.append(1)))
    assert done == [1]
    assert "IndexError" in caplog.text
    assert await disk.finish(30)


async def test_a_disk_that_hangs_is_left_after_the_time_given() -> None:
    disk, answers = DiskThread("disk"), threading.Event()
    disk.submit(lambda: answers.wait() and None)
    began = time.monotonic()
    assert not await disk.finish(0.2)
    assert time.monotonic() - began < 10
    answers.set()


async def test_who_stops_waiting_does_not_stop_the_work() -> None:
    disk, answers, done = DiskThread("disk"), threading.Event(), list[int]()

    def work() -> None:
        answers.wait()
        done.append(1)

    waiting = asyncio.ensure_future(asyncio.wrap_future(disk.submit(work)))
    also_waiting = asyncio.ensure_future(asyncio.wrap_future(disk.submit(lambda: done.append(2))))
    await asyncio.sleep(0)
    waiting.cancel()
    also_waiting.cancel()
    answers.set()
    assert await disk.finish(30)
    assert done == [1, 2]


HANG = """
import asyncio, threading
from daq_core.showing.journal import Journal
from daq_core.showing import journal
from pathlib import Path
journal.CLOSE_S = 0.2
journal._append = lambda path, lines: threading.Event().wait()
async def main():
    kept = Journal(Path("/nowhere"))
    kept._disk.submit(lambda: journal._append(None, ""))
    await kept.close()
asyncio.run(main())
print("over")
"""


def test_a_program_ends_although_the_disk_of_its_journal_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANG], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "over\n"
    assert "does not answer" in done.stderr
