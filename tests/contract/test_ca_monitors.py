"""What monitors are told, on the wire: changes alone, by mask, whole, with the time of the event."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from daq_core.state import events as ev
from tests.channel_access.ca_wire import DOUBLE, ECHO, ENUM, EVENT_ADD, LONG, Answer, Connection, message
from tests.channel_access.ioc_thread import IocThread

VALUE, LOG, ALARM, PROPERTY = 1, 2, 4, 8
TIME = 14
EPICS_EPOCH = 631_152_000  # Unix seconds of 1990-01-01
RECEIVED = "DAQ:PacketsReceived_RBV"


def watch(wire: Connection, sid: int, kind: int, mask: int, number: int) -> None:
    """Monitor a channel with its time; the first value is dropped."""
    masks = struct.pack(">fffHH", 0, 0, 0, mask, 0)
    wire.send(message(EVENT_ADD, masks, TIME + kind, 1, sid, number))
    (first,) = wire.answers(EVENT_ADD)
    assert first.p2 == number


def updates(wire: Connection, ioc: IocThread) -> list[Answer]:
    """Return all updates that have been posted up to now: the echo that comes after them tells."""
    ioc.do(shown(ioc))
    found = []
    for _ in range(2):  # updates are sent by another task than answers
        wire.send(message(ECHO))
        while (answer := wire.answer()) is not None and answer.command != ECHO:
            found.append(answer)
    return found


async def shown(ioc: IocThread) -> None:
    ioc.ioc.refresh()


def alarm_of(update: Answer) -> tuple[int, int]:
    """Return status and severity."""
    status, severity = struct.unpack_from(">hh", update.payload)
    return status, severity


def time_of(update: Answer) -> float:
    seconds, nanoseconds = struct.unpack_from(">II", update.payload, 4)
    return float(EPICS_EPOCH + seconds + nanoseconds * 1e-9)


@pytest.mark.parametrize("mask", [VALUE, LOG, ALARM, VALUE | ALARM, PROPERTY])
def test_a_monitor_is_told_what_its_mask_asks_for_and_only_that(ioc: IocThread, mask: int) -> None:
    with Connection(ioc.ca_port) as wire:
        (sid,) = wire.channels([ioc.pv(RECEIVED)])
        watch(wire, sid, DOUBLE, mask, 1)
        ioc.apply(ev.ReceiverLost("killed"))  # its alarm changes, its value does not
        lost = updates(wire, ioc)
        ioc.apply(ev.PipelineReady())
        again = updates(wire, ioc)
        count(ioc)
        counted = updates(wire, ioc)
        count(ioc, by=0)
        same = updates(wire, ioc)
    assert [alarm_of(update) for update in lost] == [(9, 3)] * bool(mask & ALARM)  # COMM, INVALID
    assert [alarm_of(update) for update in again] == [(0, 0)] * bool(mask & ALARM)
    assert len(counted) == bool(mask & (VALUE | LOG))
    assert same == []


def count(ioc: IocThread, by: int = 1) -> None:
    counters = ioc.daq.snapshot.counters

    async def publish() -> None:
        ioc.daq.publish(counters=replace(counters, packets_received=counters.packets_received + by))

    ioc.do(publish())


def test_value_alarm_and_time_come_together_and_the_time_is_that_of_the_event(ioc: IocThread) -> None:
    with Connection(ioc.ca_port) as wire:
        names = [ioc.pv(name) for name in ("DAQ:State_RBV", "DAQ:AcqState_RBV", RECEIVED)]
        sids = wire.channels(names)
        for number, (sid, kind) in enumerate(zip(sids, (ENUM, ENUM, DOUBLE), strict=True)):
            watch(wire, sid, kind, VALUE | ALARM, number)
        ioc.apply(ev.ReceiverLost("killed"))
        event = ioc.daq.snapshot.time
        lost = updates(wire, ioc)
        ioc.apply(ev.PipelineReady())
        updates(wire, ioc)
    assert sorted(update.p2 for update in lost) == [0, 1, 2]
    assert {alarm_of(update)[1] for update in lost} == {3}
    (state,) = [update for update in lost if update.p2 == 0]
    assert struct.unpack_from(">H", state.payload, 14) == (2,)  # UNKNOWN, behind RISC padding of 2 bytes
    assert [time_of(update) for update in lost] == pytest.approx([event] * 3, abs=1e-6)


def test_a_monitor_of_a_number_may_ask_for_another_type(ioc: IocThread) -> None:
    with Connection(ioc.ca_port) as wire:
        (sid,) = wire.channels([ioc.pv(RECEIVED)])
        watch(wire, sid, LONG, VALUE, 1)
        count(ioc)
        (update,) = updates(wire, ioc)
        assert struct.unpack_from(">i", update.payload, 12) == (ioc.daq.snapshot.counters.packets_received,)
