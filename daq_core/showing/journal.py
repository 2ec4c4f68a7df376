"""The acquisition log: every run that ended, FAILED ones too, kept across restarts.

A run is noted when it begins, too, so that the next start finds one whose end was
never recorded because the service was killed; see ``daq_core.control.interrupted``.

An append-only file of one JSON object a line, each synced to the disk by a
thread of its own, because a disk may take its time and the loop may not. While a
disk hangs, one line a run waits. When a disk refuses lines, it gets them again
with the next one. A torn last line, left by a crash, is passed over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from daq_core.errors import Unavailable
from daq_core.linux.disk_thread import DiskThread
from daq_core.linux.private_file import private
from daq_core.state.status import Acquisition, WriteRequest

log = logging.getLogger(__name__)

CLOSE_S = 3.0  # for the disk to take the last lines when the service ends
REMEMBERED = 1000  # acquisitions in memory; the file keeps all


@dataclass(frozen=True)
class Begun:
    """A run that was accepted, and who its file belongs to."""

    request: WriteRequest
    start_time: float  # Unix seconds; an acquisition that ended is known by it
    writer_user_id: int
    writer_group: int | None


ACQUISITION = TypeAdapter(Acquisition)
NOTE = TypeAdapter(dict[Literal["begun"], Begun])
BEGUN_PREFIX = '{"begun": '
LOSSES_KEY = '"losses": '


class Journal:
    """The newest acquisitions in memory, all of them in ``journal.jsonl`` of a folder, if there is one.

    ``trouble`` is why the newest lines are not on the disk, "" when they are.

    Raises
    ------
    Unavailable
        The file is there, but cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._newest: deque[Acquisition] = deque(maxlen=REMEMBERED)
        self._path = folder / "journal.jsonl" if folder is not None else None
        self._disk = DiskThread("journal")
        self._unsaved: deque[str] = deque(
            maxlen=REMEMBERED
        )  # lines that the disk refused; only the disk's thread uses it
        self.trouble = ""
        self.total = 0
        self._begun: dict[float, Begun] = {}  # runs whose end is not recorded
        if self._path is not None:
            self._load(self._path)

    def newest_first(self) -> tuple[Acquisition, ...]:
        return tuple(reversed(self._newest))

    @property
    def unended(self) -> tuple[Begun, ...]:
        """Runs that began and whose end was not recorded; at a start, those that were interrupted."""
        return tuple(self._begun.values())

    async def begin(self, begun: Begun) -> None:
        """Note that a run begins; returns when that is on the disk, or could not be put there."""
        self._begun[begun.start_time] = begun
        if self._path is not None:
            line = json.dumps({"begun": asdict(begun)})
            await asyncio.wrap_future(self._disk.submit(partial(self._save, self._path, line)))

    def add(self, acquisition: Acquisition) -> None:
        """Remember an acquisition that ended; it reaches the disk soon after."""
        self._newest.append(acquisition)
        self.total += 1
        self._forget(acquisition)
        if self._path is not None:
            line = json.dumps(asdict(acquisition))
            self._disk.submit(partial(self._save, self._path, line))

    async def close(self) -> None:
        """Wait until everything is on the disk; one that hangs is not waited for."""
        if not await self._disk.finish(CLOSE_S):
            log.error("the disk of %s does not answer: the newest runs may be missing in it", self._path)

    def _save(self, path: Path, line: str) -> None:
        """In the disk's thread: append a line, behind those that the disk refused before."""
        self._unsaved.append(line)
        try:
            _append(path, "\n".join(self._unsaved))
        except OSError as error:
            trouble = f"the acquisition log {path} cannot be written: {error.strerror}"
            if trouble != self.trouble:
                log.error("%s; it is kept in memory", trouble)
            self.trouble = trouble
        else:
            self._unsaved.clear()
            self.trouble = ""

    def _load(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    self._take(path, line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"The acquisition log {path} cannot be read: {error.strerror}.") from None

    def _take(self, path: Path, line: str) -> None:
        try:
            if line.startswith(BEGUN_PREFIX):
                begun = NOTE.validate_json(line)["begun"]
                self._begun[begun.start_time] = begun
                return
            acquisition = ACQUISITION.validate_json(line)
            if LOSSES_KEY not in line:  # of a version that did not note them
                acquisition = replace(acquisition, losses=None)
            if acquisition.running or acquisition.request is None:
                raise ValueError("no acquisition that ended")
        except ValueError:
            log.warning("%s: a line is not readable and passed over: %.60s", path, line.rstrip())
        else:
            self._newest.append(acquisition)
            self.total += 1
            self._forget(acquisition)

    def _forget(self, ended: Acquisition) -> None:
        """Take a run that ended from those that did not."""
        if ended.start_time is not None:
            self._begun.pop(ended.start_time, None)


def _append(path: Path, lines: str) -> None:
    """Append lines and sync them; when the disk refuses, leave the file as it was."""
    with open(path, "a+b", buffering=0, opener=private) as file:
        size = file.seek(0, os.SEEK_END)
        if size > 0:
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"  # left by a crash: it must not swallow this line too
            lines = "\n" + lines if torn else lines
        content = lines.encode() + b"\n"
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
