"""Setpoints outlive the service: saved when they change, put back before anything is served.

Which ones: the rows with a ``restore``, the same that ``db/daq_settings.req`` names. No
command is among them, nor the detector config, which ``ioc.service.saved_config`` keeps. They are in
``settings.json`` of the state directory, by their names behind the prefix. Its disk is never
waited for in the event loop: a thread writes, one at a time; what changes meanwhile waits as the
newest values, not in a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from caproto import ChannelType

from daq_core.errors import DaqError
from ioc.commands.commands import Commands
from ioc.pvs.alarms import Alarm
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from ioc.records.record import Record
from ioc.records.record_kinds import Number, Text
from ioc.service.durable_file import replace_file
from ioc.values.operator import SaveState

log = logging.getLogger(__name__)

SETTINGS: tuple[Row, ...] = tuple(row for row in PVS if row.restore is not None)

VERSION = 1
MAX_BYTES = 1 << 20  # of the file; all settings at their longest are 12 kB
MAX_STARTS = 1 << 53  # a double holds it exactly
PERIOD_S = 1.0  # from one save to the next, at least
RETRY_S = 5.0  # after one that failed
SLOW_S = 5.0  # a disk that takes longer is in trouble
LAST_SAVE_S = 2.0  # when the service ends


class Autosave:
    """Usage: ``await autosave.restore(records, commands)``, then ``autosave.keep()`` as a task.

    ``note_change`` listens to the stream of PVs. The file is read at once, so make it before the event
    loop.
    """

    def __init__(self, state_dir: Path, *, fresh: bool = False) -> None:
        """Read what was saved; `fresh` puts nothing back, and the next save replaces it."""
        self.path = state_dir / "settings.json"
        self.state = SaveState()
        self._found: Mapping[str, Any] = {}  # as it was read
        self._records: dict[str, Record] = {}
        self._on_disk: dict[str, Any] | None = None  # None: nothing was saved since the start
        self._changed = asyncio.Event()
        self._writing: asyncio.Future[str] | None = None  # of the thread that writes, if any
        self._trouble = ""  # why the last save failed
        self._read()
        if fresh:
            self._found = {}
            self._show(status="OK", text="not restored: --fresh")

    # -- putting back ------------------------------------------------------------------------

    async def restore(self, records: Iterable[Record], commands: Commands) -> None:
        """Put back what was saved, as far as it is still legal; one log line for each that is not."""
        self._records = {r.row.pv(""): r for r in records if r.row.restore is not None}
        left: list[str] = []
        for name, value in self._found.items():
            record = self._records.get(name)
            try:
                if record is None or record.row.restore is None:
                    raise ValueError("there is no such setting")
                await commands.restore(record.row.restore, record.decode(*_as_put(record, value)))
            except (DaqError, ValueError, OverflowError) as reason:
                log.warning("autosave: %s = %.100r is not restored: %s", name, value, reason)
                left.append(name)
        if left:
            self._show(status="Warning", text=f"not restored: {', '.join(left)}")
        elif self._found:
            log.info("autosave: %d settings restored from %s", len(self._found), self.path)
            self._show(text=f"{len(self._found)} restored")

    def _read(self) -> None:
        """Find out what was saved; a file that cannot be read is kept aside, and never stops the start."""
        try:
            with self.path.open(encoding="utf-8") as file:
                text, modified = file.read(MAX_BYTES), self.path.stat().st_mtime
            self._found, n_starts = _parsed(text)
        except FileNotFoundError:
            self._show(text="nothing to restore")
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(error)
        else:
            self._show(last_save=modified, n_starts=n_starts + 1)

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(".bad.json")
        log.warning("autosave: %s cannot be read, it is kept as %s: %s", self.path, aside.name, error)
        self._show(status="Warning", text=f"{self.path.name} could not be read")
        try:
            self.path.replace(aside)
        except OSError as trouble:
            log.warning("autosave: %s cannot be renamed: %s", self.path, trouble.strerror)

    # -- saving ------------------------------------------------------------------------------

    def note_change(self, row: Row, value: Any, alarm: Alarm, when: float) -> None:
        """Have the settings saved soon, when one of them was told of in the stream."""
        if row.restore is not None:
            self._changed.set()

    async def keep(self) -> None:
        """Save the settings whenever they change, until cancelled; what is left then is saved last."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._save()
                if self._trouble:
                    self._changed.set()
                await asyncio.sleep(RETRY_S if self._trouble else PERIOD_S)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SAVE_S):
                    await self._save()

    async def _save(self) -> None:
        """Write the settings when they are not on disk as they are; returns when they are, or cannot be."""
        if self._writing is not None:  # left by a save that was cancelled
            await asyncio.wait({self._writing})
        values = {name: record.value for name, record in self._records.items() if record.value is not None}
        if values == self._on_disk:
            return
        content = {"version": VERSION, "starts": self.state.n_starts, "settings": values}
        self._writing = self._write_in_thread(json.dumps(content, indent=1) + "\n")
        if not (await asyncio.wait({self._writing}, timeout=SLOW_S))[0]:
            self._tell(f"no answer of the disk in {SLOW_S:.0f} s")
            await asyncio.wait({self._writing})
        trouble = self._writing.result()
        self._writing = None
        self._tell(trouble)
        if not trouble:
            first, self._on_disk = self._on_disk is None, values
            self._show(last_save=time.time())
            if not first:  # the first tells of the start: what was not restored stays to be seen
                self._show(status="OK", text="saved")

    def _write_in_thread(self, text: str) -> asyncio.Future[str]:
        """Give what becomes why the file could not be written, or "".

        The thread is a daemon, as the service must be able to end although the disk hangs.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()

        def write() -> None:
            try:
                replace_file(self.path, text)
                trouble = ""
            except OSError as error:
                trouble = error.strerror or str(error)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done.set_result, trouble)

        threading.Thread(target=write, name="autosave", daemon=True).start()
        return done

    def _tell(self, trouble: str) -> None:
        """Show that the settings cannot be saved, or can again; a change of that is one line in the log."""
        if trouble and trouble != self._trouble:
            log.error("autosave: the settings cannot be saved to %s: %s", self.path, trouble)
            self._show(status="Error", text=trouble)
        elif not trouble and self._trouble:
            log.info("autosave: the settings are saved again")
            self._show(status="OK", text="saved")
        self._trouble = trouble

    def _show(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)


def _parsed(text: str) -> tuple[dict[str, Any], int]:
    """Return settings and starts of a saved file, whatever its version; ValueError says what is wrong."""
    kept = json.loads(text)
    if not isinstance(kept, dict) or not isinstance(kept.get("settings"), dict):
        raise ValueError("it is not in the form that autosave writes")
    n_starts = kept.get("starts")
    if not isinstance(n_starts, int) or not 0 <= n_starts < MAX_STARTS:
        n_starts = 0
    return kept["settings"], n_starts


def _as_put(record: Record, value: Any) -> tuple[ChannelType, list[Any]]:
    """Return a saved value as a client would have put it, so that it is checked in the same way."""
    if isinstance(record, Text) and isinstance(value, str):
        return ChannelType.CHAR, list(value.encode())
    if isinstance(record, Number) and isinstance(value, int | float) and not isinstance(value, bool):
        return ChannelType.DOUBLE, [value]
    if isinstance(value, str) and not isinstance(record, Number):
        return ChannelType.STRING, [value.encode()]
    raise ValueError(f"{record.name} takes another type of value")
