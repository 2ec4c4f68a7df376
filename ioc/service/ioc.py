"""The Channel Access face of the DAQ: snapshots become PVs, and nothing here can end it.

A change of the status is shown at once, in the snapshot's own step, so PVs see
each state of a run in its order; counters and rates are shown at most every
``REFRESH_S``, the latest alone. Clients that cannot follow are the business of
``ioc.channel_access.circuits``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daq_core.errors import DaqError
from daq_core.state.status import Counters, DaqStatus, Snapshot
from ioc.access.control import AccessControl
from ioc.channel_access.server import Server
from ioc.commands.commands import Commands
from ioc.pvs.alarms import Alarm
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from ioc.pvs.stream import Listener, PvStream
from ioc.pvs.view import StdDaqJson, View
from ioc.records.record import Record
from ioc.records.record_kinds import record_of
from ioc.service.autosave import Autosave
from ioc.service.log_output import COUNTED, Errors
from ioc.service.watch import Watch
from ioc.values.operator import FaceHealth, IocHealth
from ioc.values.version import described_version

if TYPE_CHECKING:
    from daq_core.control.door import Door

log = logging.getLogger(__name__)

REFRESH_S = 0.05
HEARTBEAT_S = 1.0
RISING_S = 10.0  # a counter that rose this long ago is still called rising
BACKOFF_S = (0.1, 5.0)  # first and longest pause before a failed task is started again


class Ioc:
    """Serves the PVs of a DAQ under a prefix.

    Parameters
    ----------
    prefix : str
        What all names start with, e.g. ``X02DA:``.
    bind, ca_port
        Address and port, of TCP and UDP alike.
    health : callable
        What the other faces have to say of themselves, asked once a second.
    std_daq : StdDaqJson, optional
        Forms of the JSON texts; without it these PVs stay undefined.
    aliases : mapping, optional
        Second names of PVs, each with the PV's own.
    autosave : Autosave, optional
        Keeps the setpoints; without it they begin with their defaults.
    engineer, location : str
        Who is responsible, and where the detector is: shown, no more.
    errors : Errors, optional
        What went wrong in the program; errors of this face are added.
    end : callable, optional
        Ends the program soon, in order, for SYSRESET.
    access : AccessControl, optional
        Who may read and put what; without it: all may read, this machine may put.

    Attributes
    ----------
    stream : PvStream
        What the PVs show, for the face of another protocol.
    records : dict
        Each PV's record, by the PV's whole name.
    commands : Commands
        What puts and SYSRESET do.
    server : Server
        The clients of Channel Access, and what is counted of them.
    view : View
        What all PVs are to show; they do after :meth:`refresh`.
    """

    def __init__(
        self,
        daq: Door,
        prefix: str,
        *,
        bind: str = "127.0.0.1",
        ca_port: int = 5064,
        health: Callable[[], FaceHealth] = FaceHealth,
        std_daq: StdDaqJson | None = None,
        aliases: Mapping[str, str] | None = None,
        autosave: Autosave | None = None,
        engineer: str = "",
        location: str = "",
        errors: Errors | None = None,
        end: Callable[[], None] | None = None,
        access: AccessControl | None = None,
    ) -> None:
        self._daq = daq
        self._health = health
        self.records = {row.pv(prefix): record_of(row, prefix) for row in PVS}
        self.stream = PvStream(PVS, lambda row, fault: self._report(f"PV {row.pv(prefix)}", fault))
        self.stream.subscribe(_posting(self.records.values()))
        access = access or AccessControl()
        self.commands = Commands(daq, self.refresh, access, self._note_error, end)
        self._autosave = autosave
        if autosave is not None:
            self.stream.subscribe(autosave.note_change)
        self._watch = Watch()
        found = self.records | {alias: self.records[pv] for alias, pv in (aliases or {}).items()}
        self.server = Server(found, self.commands, bind=bind, port=ca_port, report=self._report)
        self._counters: deque[tuple[float, Counters]] = deque()  # one a second, as far back as RISING_S
        self._stale = False  # something changed that is not shown yet
        self._errors = errors or Errors()
        self._longest_lag_s = 0.0  # of the event loop, since the last beat
        self._known: set[str] = set()  # where errors were logged
        self.view = View(
            daq.snapshot,
            daq.snapshot.config.layout,
            earlier=daq.snapshot.counters,
            std_daq=std_daq,
            ioc=IocHealth(
                version=described_version(),
                started=time.time(),
                n_records=len(self.records),
                engineer=engineer,
                location=location,
            ),
        )

    @property
    def names(self) -> list[str]:
        """Names of all PVs."""
        return list(self.records)

    async def run(self, started: asyncio.Event) -> None:
        """Serve until cancelled; `started` is set once clients are answered.

        Raises
        ------
        Unavailable
            The port is taken.
        """
        if self._autosave is not None:
            await self._autosave.restore(self.records.values(), self.commands)
        unsubscribe = self._daq.subscribe(self._on_snapshot)
        try:
            self._on_snapshot(self._daq.snapshot)
            self.beat()  # all PVs are true before the first client sees one
            async with self.server, asyncio.TaskGroup() as tasks:
                started.set()
                for work in (self._refresh_often, self._beat_often, self.server.beacons):
                    tasks.create_task(self._keep_alive(work))
                if self._autosave is not None:
                    tasks.create_task(self._keep_alive(self._autosave.keep))
                    tasks.create_task(self._look_at_restored_folder())
        finally:
            unsubscribe()

    # -- showing -----------------------------------------------------------------------------

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        """Show a change of the state now, of anything else soon. Never raises."""
        before = self.view
        self.view = replace(before, snapshot=snapshot, layout=snapshot.config.layout)
        self._stale = True
        if _moved(before.snapshot, snapshot):
            self.refresh(snapshot.time)

    def refresh(self, when: float | None = None) -> None:
        """Tell of every PV whose value or alarm changed, with the time of the event that changed it."""
        self._stale = False
        commands = self.commands
        self.view = view = replace(
            self.view,
            next=commands.setpoints,
            staging=commands.staging,
            command=commands.last,
            area=commands.area.state,
            access=commands.access.rules,
        )
        now = time.time() if when is None else when
        self.stream.show(view, now)

    async def _refresh_often(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(REFRESH_S)
            self._longest_lag_s = max(self._longest_lag_s, time.monotonic() - began - REFRESH_S)
            if self._stale:
                self.refresh(self.view.snapshot.time)

    # -- health ------------------------------------------------------------------------------

    async def _beat_often(self) -> None:
        due = time.monotonic()
        counts = self.server.counts
        n_updates = counts.n_updates
        while True:
            due = max(due + HEARTBEAT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            n_updates, rate = counts.n_updates, (counts.n_updates - n_updates) / HEARTBEAT_S
            self.beat(updates_per_second=rate)

    def beat(self, updates_per_second: float = 0.0) -> None:
        """Bring up to date what depends on the time alone, and what the server counts."""
        now = time.time()
        self.commands.area.beat()
        self._counters.append((now, self.view.snapshot.counters))
        while len(self._counters) > 1 and self._counters[0][0] < now - RISING_S:
            self._counters.popleft()
        before = self.view.ioc
        ioc = replace(
            before,
            heartbeat=before.heartbeat + 1,
            loop_lag_s=self._longest_lag_s,
            n_clients=len(self.server.circuits),
            n_channels=self.server.n_channels,
            n_dropped=self.server.counts.n_dropped,
            n_stalled=self.server.n_stalled_now,
            updates_per_second=updates_per_second,
            errors=self._errors.n,
            last_error=self._errors.last,
        )
        self._longest_lag_s = 0.0
        self.view = replace(
            self.view,
            now=now,
            ioc=ioc,
            usage=self._watch.look(),
            saves=None if self._autosave is None else self._autosave.state,
            earlier=self._counters[0][1],
            face=self._health(),
        )
        self.refresh(now)

    async def _look_at_restored_folder(self) -> None:
        """See whether the folder that autosave put back is there; a file system that hangs delays nobody."""
        try:
            await self.commands.area.look_again()
        except DaqError as trouble:
            log.warning("FilePath of the last time: %s", trouble)
        except Exception as fault:
            self._report("FilePath of the last time", fault)

    # -- staying alive -----------------------------------------------------------------------

    async def _keep_alive(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start a task again whenever it fails, after a pause that doubles each time."""
        pause, longest = BACKOFF_S
        while True:
            try:
                await work()
            except Exception as fault:
                self._report(work.__qualname__, fault)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _report(self, where: str, fault: BaseException) -> None:
        """Count an error of ours, keep its text for LastError_RBV, and log it with its traceback."""
        self._errors.add(f"{where}: {type(fault).__name__}: {fault}")
        if where not in self._known:  # the same fault twenty times a second is one fault
            self._known.add(where)
            log.error("%s", where, exc_info=fault, extra=COUNTED)

    def _note_error(self, text: str) -> None:
        """Do the same for a mistake of somebody else's, which needs no traceback."""
        self._errors.add(text)
        log.error("%s", text, extra=COUNTED)


def _posting(records: Iterable[Record]) -> Listener:
    """Make the listener of the stream that Channel Access is."""
    by_row = {record.row: record for record in records}

    def post(row: Row, value: Any, alarm: Alarm, when: float) -> None:
        by_row[row].post(value, alarm, when)

    return post


def _moved(before: Snapshot, after: Snapshot) -> bool:
    """Tell whether the state changed, not only its counts."""
    return _situation(before.status) != _situation(after.status)


def _situation(status: DaqStatus) -> tuple[object, ...]:
    run = status.acquisition
    return status.state, status.receiver_down, run.state, run.request, run.message
