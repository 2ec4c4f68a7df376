"""Channel Access messages: values as caproto packs them, requests whole or in pieces, garbage named."""

from __future__ import annotations

import struct
from typing import Any

import caproto as ca
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioc.channel_access.messages import (
    EVENT,
    MAX_REQUEST_BYTES,
    OK,
    READ_NOTIFY,
    Garbage,
    Requests,
    packed,
    value_message,
)
from ioc.pvs.alarms import MAJOR, NO_ALARM
from ioc.pvs.daq import PVS
from ioc.records.record_kinds import record_of

ROWS = {row.pv(""): row for row in PVS}
READABLE = sorted(set(ca.ChannelType) - {ca.ChannelType.PUT_ACKT, ca.ChannelType.PUT_ACKS})
VALUES = {
    "DAQ:CmdTime_RBV": 2.5,
    "DAQ:AcqNImages_RBV": 7,
    "DAQ:State_RBV": "WRITING",
    "DAQ:AcqMessage_RBV": "a message",
    "DAQ:CmdName_RBV": "Stop",
    "DAQ:CfgModuleIds_RBV": (3, 4, 5),
    "DAQ:StatusJson_RBV": "{" + 65_500 * " " + "}",
}


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_a_value_is_packed_as_caproto_packs_it(name: str, kind: ca.ChannelType) -> None:
    record = record_of(ROWS[name])
    record.post(VALUES[name], MAJOR, 1.7e9)
    value = record.wire(kind)
    for command, theirs in ((EVENT, ca.EventAddResponse), (READ_NOTIFY, ca.ReadNotifyResponse)):
        expected = theirs(value.data, kind, value.n, OK, 12, metadata=value.metadata)
        assert value_message(command, kind, value, OK, 12) == packed(expected)


def test_a_value_without_elements_has_a_payload_all_the_same() -> None:
    record = record_of(ROWS["DAQ:CfgModuleIds_RBV"])
    record.post((), NO_ALARM, 1.0)
    sent = value_message(EVENT, ca.ChannelType.LONG, record.wire(ca.ChannelType.LONG), OK, 1)
    assert struct.unpack_from(">HHHH", sent) == (EVENT, 8, ca.ChannelType.LONG, 0)


def requests() -> list[Any]:
    return [
        ca.VersionRequest(0, 13),
        ca.HostNameRequest("host"),
        ca.CreateChanRequest("X:DAQ:State_RBV", 1, 13),
        ca.WriteNotifyRequest(b"\0" * 70_000, ca.ChannelType.CHAR, 70_000, 1, 2),
        ca.EchoRequest(),
    ]


@given(st.lists(st.integers(1, 5_000), min_size=1))
def test_requests_may_come_in_pieces(sizes: list[int]) -> None:
    stream = b"".join(map(packed, requests()))
    feed, found, at = Requests(), [], 0
    for n in range(len(stream)):
        size = sizes[n % len(sizes)]
        found += feed.feed(stream[at : at + size])
        at += size
        if at >= len(stream):
            break
    assert list(map(packed, found)) == list(map(packed, requests()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "unknown kind 18245"),
        (struct.pack(">HHHHII", 99, 0, 0, 0, 0, 0), "bad command ID"),
        (struct.pack(">HHHHIIII", 4, 0xFFFF, 4, 0, 1, 1, 2**32 - 8, 1), "a request of 4294967"),
        (struct.pack(">HHHHIIII", 4, 0xFFFF, 4, 0, 1, 1, MAX_REQUEST_BYTES + 8, 1), "a request of"),
    ],
)
def test_what_is_no_request_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(Garbage, match=reason):
        list(Requests().feed(data + bytes(32)[: -len(data) % 8]))
