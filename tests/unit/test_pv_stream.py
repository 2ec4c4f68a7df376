"""Any protocol's face can listen to what the PVs show: it hears all, and needs nothing of Channel Access."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import caproto as ca
import pytest

from daq_core.config import DaqConfig
from daq_core.state.status import Snapshot, WriteRequest
from ioc.pvs.alarms import NO_ALARM, UNDEFINED, Alarm, Severity, Status
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row, count
from ioc.pvs.stream import PvStream
from ioc.pvs.view import View
from ioc.values.operator import Setpoints
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import JUNGFRAU_2

CONFIG = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


class Listener:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.newest: dict[Row, tuple[Any, Alarm, float]] = {}
        self.told: list[tuple[str, Any]] = []

    def __call__(self, row: Row, value: Any, alarm: Alarm, when: float) -> None:
        self.newest[row] = (value, alarm, when)
        self.told.append((row.name, value))


@pytest.fixture
def view() -> View:
    return View(Snapshot(1.0, CONFIG, "1-0"), CONFIG.layout)


def setpoint(name: str = "Twice") -> Row:
    return count(name, lambda v: 2 * v.next.n_images, "Twice the images of the next run")


def unseen(row: Row, fault: BaseException) -> None:
    raise AssertionError(f"{row.name}: {fault}")


def test_another_face_hears_what_channel_access_shows(tmp_path: Path) -> None:
    other = Listener()
    with IocThread(CONFIG) as ioc:
        ioc.do(_subscribed(ioc, other))
        ioc.do(ioc.daq.start(WriteRequest.checked(str(tmp_path / "run.h5"), 3)))
        ioc.receive(3)
        ioc.do(_shown(ioc))
    records = {record.row: record for record in ioc.ioc.records.values()}
    assert other.newest.keys() == records.keys() == set(PVS)
    for row, (value, alarm, when) in other.newest.items():
        record = records[row]
        assert alarm == record.alarm, row.name
        assert value is None or record.fit(value) == record.value, row.name
        if alarm != UNDEFINED:
            assert when >= (record.time or 0.0), row.name
    assert [value for name, value in other.told if name == "State_RBV"] == ["READY", "WRITING", "READY"]


async def _subscribed(ioc: IocThread, listener: Listener) -> None:
    ioc.ioc.stream.subscribe(listener)
    ioc.ioc.refresh()


async def _shown(ioc: IocThread) -> None:
    ioc.ioc.refresh()


def test_what_has_not_changed_is_not_told(view: View) -> None:
    listener = Listener()
    stream = PvStream([setpoint(), count("Other", lambda v: 7, "Never changes")], unseen)
    stream.subscribe(listener)
    for n in (1, 1, 2):
        stream.show(replace(view, next=Setpoints(n_images=n)), 1.0)
    assert listener.told == [("Twice", 2), ("Other", 7), ("Twice", 4)]


def test_a_listener_that_comes_later_is_told_all_with_the_next_view(view: View) -> None:
    first, later = Listener(), Listener()
    stream = PvStream([setpoint()], unseen)
    stream.subscribe(first)
    stream.show(view, 1.0)
    stream.subscribe(later)
    stream.show(view, 2.0)
    assert [(value, when) for value, _, when in later.newest.values()] == [(2 * view.next.n_images, 2.0)]


def test_a_row_that_could_not_be_told_is_told_with_the_next_view(view: View) -> None:
    faults: list[str] = []
    listener, broken = Listener(), True

    def listen(row: Row, value: Any, alarm: Alarm, when: float) -> None:
        if broken and row.name == "First":
            raise ValueError("no room for it")
        listener(row, value, alarm, when)

    stream = PvStream(
        [setpoint("First"), setpoint("Second")], lambda row, fault: faults.append(f"{row.name}: {fault}")
    )
    stream.subscribe(listen)
    stream.show(view, 1.0)
    assert faults == ["First: no room for it"]
    assert [name for name, _ in listener.told] == ["Second"]
    broken = False
    stream.show(view, 2.0)
    assert [name for name, _ in listener.told] == ["Second", "First"]


def test_statuses_and_severities_are_those_of_epics() -> None:
    assert {status.name: status.value for status in Status} == {s.name: s.value for s in ca.AlarmStatus}
    theirs = {s.name.removesuffix("_ALARM"): s.value for s in ca.AlarmSeverity}
    assert {severity.name.removesuffix("_ALARM"): severity.value for severity in Severity} == theirs
    assert NO_ALARM == (0, 0, "")
