"""The IOC goes on whatever fails in it, and says so; updates for a slow client are bounded."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from typing import Any

import caproto as ca
import pytest

import ioc.service.ioc
from daq_core.config import DaqConfig
from ioc.channel_access.messages import HEADER
from ioc.channel_access.monitors import Monitor, Updates
from ioc.channel_access.server import Server
from ioc.pvs.alarms import NO_ALARM
from ioc.pvs.daq import PVS
from ioc.pvs.row import count
from ioc.records.record import Record
from ioc.records.record_kinds import record_of
from ioc.service.log_output import Errors
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import JUNGFRAU_2


def config() -> DaqConfig:
    return DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def shown(ioc_thread: IocThread, name: str) -> Any:
    return ioc_thread.ioc.records[ioc_thread.pv(name)].value


def test_a_task_that_fails_is_counted_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []

    async def beacons(self: Server) -> None:
        starts.append(1)
        raise RuntimeError("no beacons today")

    monkeypatch.setattr(Server, "beacons", beacons)
    with IocThread(config()) as served:
        wait_until(lambda: len(starts) >= 3, "the task was not started again")
        wait_until(lambda: shown(served, "IOC:Errors_RBV") >= 3, "the failures were not counted")
        assert "no beacons today" in shown(served, "IOC:LastError_RBV")
        assert shown(served, "DAQ:State_RBV") == "READY"


def test_a_pv_that_cannot_be_shown_does_not_keep_others_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = count("Broken_RBV", lambda v: 1 // 0, "A mistake in the table")
    monkeypatch.setattr(ioc.service.ioc, "PVS", (broken, *PVS))
    with IocThread(config()) as served:
        wait_until(lambda: shown(served, "IOC:Errors_RBV") > 0, "the mistake was not counted")
        assert "ZeroDivisionError" in shown(served, "IOC:LastError_RBV")
        assert shown(served, "DAQ:State_RBV") == "READY"
        assert shown(served, "DAQ:Broken_RBV") is None


def test_a_line_of_the_log_that_is_an_error_is_shown() -> None:
    errors = Errors()
    with errors.of_the_log(), IocThread(config(), errors=errors) as served:
        logging.getLogger("daq_core.showing.journal").error("the disk of %s is full", "/data")
        logging.getLogger("daq_core.showing.journal").warning("no error")
        wait_until(lambda: shown(served, "IOC:LastError_RBV") != "", "the error was not shown")
        assert shown(served, "IOC:LastError_RBV") == "the disk of /data is full"
        assert shown(served, "IOC:Errors_RBV") == 1


def test_a_loop_that_was_held_up_between_two_beats_is_shown() -> None:
    with IocThread(config()) as served:
        lag = served.ioc.records[served.pv("IOC:LoopLag_RBV")]
        served.do(hold_the_loop(0.3))
        wait_until(lambda: (lag.value or 0) >= 250 and lag.alarm.severity > 0, "the lag was not shown")


async def hold_the_loop(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251


def monitored(name: str) -> tuple[Record, Updates]:
    """Return a record and the updates of a client that monitors it."""
    (row,) = [row for row in PVS if row.pv("") == name]
    record, updates = record_of(row), Updates()
    request = ca.EventAddRequest(ca.ChannelType.LONG, 0, sid=1, subscriptionid=1, low=0, high=0, to=0, mask=5)
    record.monitors.add(Monitor(record, request, updates))
    return record, updates


def values(batch: list[bytes]) -> list[int]:
    return [struct.unpack_from(">i", update, HEADER.size)[0] for update in batch]


def test_updates_come_in_order_and_whole_up_to_the_backlog() -> None:
    record, updates = monitored("DAQ:AcqNWriteCompleted_RBV")
    for n in range(50):
        record.post(n, NO_ALARM, 1.0)
    assert (0, list(range(50))) == (lambda dropped, batch: (dropped, values(batch)))(*updates.take())


def test_beyond_the_backlog_the_oldest_updates_are_dropped_and_counted() -> None:
    record, updates = monitored("DAQ:AcqNWriteCompleted_RBV")
    for n in range(1000):
        record.post(n, NO_ALARM, 1.0)
    n_dropped, batch = updates.take()
    assert n_dropped == 950
    assert values(batch) == list(range(950, 1000))


def test_a_client_that_pauses_gets_the_newest_value_when_it_goes_on() -> None:
    record, updates = monitored("DAQ:AcqNWriteCompleted_RBV")
    for n in range(10):
        record.post(n, NO_ALARM, 1.0)
    updates.pause()
    for n in range(10, 20):
        record.post(n, NO_ALARM, 1.0)
    updates.resume()
    assert values(updates.take()[1]) == [19]


def test_nothing_is_sent_after_a_monitor_ended() -> None:
    record, updates = monitored("DAQ:AcqNWriteCompleted_RBV")
    record.post(1, NO_ALARM, 1.0)
    (monitor,) = record.monitors
    assert isinstance(monitor, Monitor)
    monitor.end()
    record.post(2, NO_ALARM, 1.0)
    assert updates.take() == (0, [])


def test_monitors_that_come_and_go_while_a_client_pauses_leave_nothing_behind() -> None:
    record, updates = monitored("DAQ:AcqNWriteCompleted_RBV")
    updates.pause()
    for n in range(100):
        request = ca.EventAddRequest(
            ca.ChannelType.LONG, 0, sid=1, subscriptionid=n, low=0, high=0, to=0, mask=5
        )
        monitor = Monitor(record, request, updates)
        record.monitors.add(monitor)
        record.post(n, NO_ALARM, 1.0)
        monitor.end()
    assert len(updates) == 1  # the one that is still there
    updates.resume()
    assert values(updates.take()[1]) == [99]
