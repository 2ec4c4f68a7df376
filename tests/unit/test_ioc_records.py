"""Records: every value can be read as every DBR type, and a put is understood or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from caproto import AlarmSeverity, ChannelType, TimeStamp
from hypothesis import given
from hypothesis import strategies as st

from ioc.pvs.alarms import MAJOR, NO_ALARM, Limits
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from ioc.records.dbr import EPICS_EPOCH, TIME_PADDING, Wire, structure, time_structure
from ioc.records.record import Record
from ioc.records.record_kinds import record_of

RECORDS = {row.pv(""): row for row in PVS}
READABLE = sorted(set(ChannelType) - {ChannelType.PUT_ACKT, ChannelType.PUT_ACKS})
KINDS = {
    "DAQ:CmdTime_RBV": st.floats(),
    "DAQ:AcqNImages_RBV": st.integers(),
    "DAQ:State_RBV": st.sampled_from(["READY", "WRITING", "UNKNOWN"]),
    "DAQ:AcqMessage_RBV": st.text(),
    "DAQ:CmdName_RBV": st.text(),
    "DAQ:CfgModuleIds_RBV": st.lists(st.integers(), max_size=300).map(tuple),
}


def record(name: str) -> Record:
    return record_of(RECORDS[name])


def structure_of(wire: Wire, kind: ChannelType) -> Any:
    """Read what stands before the value."""
    return type(structure(kind)).from_buffer_copy(bytes(wire.metadata))


class Listener:
    """A monitor that keeps what it is offered."""

    def __init__(self, data_type: ChannelType, mask: int = 5) -> None:
        self.data_type, self.n, self.mask = int(data_type), 0, mask
        self.updates: list[Wire] = []

    def offer(self, update: Wire) -> None:
        self.updates.append(update)


@pytest.mark.parametrize("name", sorted(KINDS))
@given(data=st.data(), kind=st.sampled_from(READABLE), n=st.integers(0, 50))
def test_every_value_can_be_read_as_every_type(
    name: str, data: st.DataObject, kind: ChannelType, n: int
) -> None:
    shown = record(name)
    value = data.draw(st.none() | KINDS[name])
    shown.post(value, MAJOR, 1.7e9)
    wire = shown.wire(kind, n)
    assert wire.n == n or not n or not wire.data
    assert isinstance(bytes(wire.metadata), bytes)


@given(st.data())
def test_a_put_of_anything_is_understood_or_refused(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from([row for row in PVS if row.put is not None]))
    target = record_of(row)
    native = data.draw(
        st.sampled_from([ChannelType.STRING, ChannelType.CHAR, ChannelType.LONG, ChannelType.DOUBLE])
    )
    elements: dict[ChannelType, st.SearchStrategy[Any]] = {
        ChannelType.STRING: st.binary(max_size=40),
        ChannelType.CHAR: st.integers(0, 255),
        ChannelType.LONG: st.integers(-(2**31), 2**31 - 1),
        ChannelType.DOUBLE: st.floats(),
    }
    try:
        value = target.decode(native, data.draw(st.lists(elements[native], max_size=50)))
    except (ValueError, OverflowError):
        return
    assert target.post(value, NO_ALARM, 1.0)
    assert target.value == value


def test_a_record_is_undefined_until_it_is_posted() -> None:
    wire = record("DAQ:AcqNImages_RBV").wire(ChannelType.TIME_LONG)
    said = structure_of(wire, ChannelType.TIME_LONG)
    assert said.severity == AlarmSeverity.INVALID_ALARM
    assert said.stamp.secondsSinceEpoch == 0


def test_a_value_carries_the_time_of_its_event() -> None:
    shown = record("DAQ:AcqNImages_RBV")
    shown.post(3, NO_ALARM, 1_700_000_000.25)
    said = structure_of(shown.wire(ChannelType.TIME_LONG), ChannelType.TIME_LONG)
    assert said.stamp.timestamp == 1_700_000_000.25


@pytest.mark.parametrize("kind", sorted(TIME_PADDING), ids=lambda kind: kind.name)
@given(st.integers(0, 21), st.integers(0, 3), st.floats(0, 2**32 - 1))
def test_what_stands_before_a_value_with_a_time_is_what_caproto_makes(
    kind: ChannelType, status: int, severity: int, time: float
) -> None:
    made = time_structure(kind, status, severity, EPICS_EPOCH + time)
    expected = structure(kind, status=status, severity=severity)
    expected.stamp = TimeStamp.from_unix_timestamp(EPICS_EPOCH + time)
    said = type(expected).from_buffer_copy(made)
    assert len(made) == len(bytes(expected))
    assert (said.status, said.severity) == (status, severity)
    assert said.stamp.timestamp == pytest.approx(expected.stamp.timestamp, abs=2e-6)


@pytest.mark.parametrize(("time", "seconds"), [(0.0, 0), (-1e18, 0), (1e18, 2**32 - 1)])
def test_a_clock_that_is_not_set_gives_a_time_all_the_same(time: float, seconds: int) -> None:
    shown = record("DAQ:AcqNImages_RBV")
    shown.post(3, NO_ALARM, time)
    said = structure_of(shown.wire(ChannelType.TIME_LONG), ChannelType.TIME_LONG)
    assert said.stamp.secondsSinceEpoch == seconds


def test_an_equal_value_is_not_posted_again() -> None:
    shown, listener = record("DAQ:AcqNImages_RBV"), Listener(ChannelType.TIME_LONG)
    shown.monitors.add(listener)
    assert shown.post(3, NO_ALARM, 1.0)
    assert not shown.post(3, NO_ALARM, 2.0)
    assert len(listener.updates) == 1


def test_a_change_of_severity_alone_is_posted_to_who_asks_for_alarms() -> None:
    shown, alarms, values = (
        record("DAQ:AcqNImages_RBV"),
        Listener(ChannelType.TIME_LONG, 4),
        Listener(ChannelType.LONG, 1),
    )
    shown.monitors.update({alarms, values})
    shown.post(3, NO_ALARM, 1.0)
    shown.post(3, MAJOR, 2.0)
    said = structure_of(alarms.updates[-1], ChannelType.TIME_LONG)
    assert said.severity == AlarmSeverity.MAJOR_ALARM
    assert len(values.updates) == 1


def test_two_records_do_not_share_an_alarm() -> None:
    one, two = record("DAQ:AcqNImages_RBV"), record("DAQ:AcqMissing_RBV")
    one.post(1, MAJOR, 1.0)
    two.post(1, NO_ALARM, 1.0)
    assert (one.alarm, two.alarm) == (MAJOR, NO_ALARM)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.5, float("nan"), float("inf")])
def test_a_number_that_is_no_32_bit_integer_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NImages"):
        record("DAQ:NImages").decode(ChannelType.DOUBLE, [value])


def test_a_readback_beyond_32_bits_saturates() -> None:
    shown = record("DAQ:MissingPackets_RBV")
    shown.post(2**40, NO_ALARM, 1.0)
    assert shown.value == 2**31 - 1


def test_an_index_beyond_the_states_is_refused() -> None:
    with pytest.raises(ValueError, match="Done, Start"):
        record("DAQ:WriteSync").decode(ChannelType.LONG, [2])


def test_a_state_can_be_put_by_its_name() -> None:
    assert record("DAQ:WriteSync").decode(ChannelType.STRING, [b"Start"]) == "Start"


def test_a_long_text_takes_utf_8() -> None:
    path = "/data/Mößbauer µm/run.h5"
    target = record("DAQ:OutputFile")
    assert target.decode(ChannelType.CHAR, list(path.encode() + b"\0junk")) == path
    with pytest.raises(ValueError, match="UTF-8"):
        target.decode(ChannelType.CHAR, [255])


def test_a_text_that_caput_may_have_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="caput -S"):
        record("DAQ:OutputFile").decode(ChannelType.STRING, [b"/" + b"x" * 38])


def test_an_empty_text_has_one_element() -> None:
    assert record("DAQ:OutputFile").wire(ChannelType.CHAR).n == 1


@given(st.text(max_size=60))
def test_a_string_is_cut_between_characters(text: str) -> None:
    shown = record("DAQ:CmdName_RBV")
    shown.post(text, NO_ALARM, 1.0)
    data = shown.wire(ChannelType.STRING).data
    assert len(data) == 40
    data.rstrip(b"\0").decode()


@pytest.mark.parametrize(("value", "severity"), [(0, 2), (1, 2), (5, 1), (10, 1), (11, 0)])
def test_limits_are_part_of_the_alarm(value: float, severity: int) -> None:
    assert Limits(low=10, lolo=1).alarm(value).severity == severity


@pytest.mark.parametrize("row", [row for row in PVS if row.put is not None], ids=lambda row: row.pv(""))
def test_a_put_that_means_nothing_is_refused_by_the_name_of_its_pv(row: Row) -> None:
    record = record_of(row, "X:")
    with pytest.raises(ValueError, match=re.escape(record.name)):
        record.decode(ChannelType.STRING, [b"\xff\xfe"])


@pytest.mark.parametrize("text", ["0x", "12abc", "1_000", "\u0663", "0b11", "08", "1e", "--1", ""])
def test_a_text_that_is_no_number_is_refused(text: str) -> None:
    record = record_of(next(row for row in PVS if row.pv("") == "cam1:NumImages"))
    with pytest.raises(ValueError, match="cam1:NumImages takes a"):
        record.decode(ChannelType.STRING, [text.encode()])
