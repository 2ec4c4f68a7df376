"""What processes say to each other arrives as it was said; who dies in the middle of a word is lost."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.control.task import FolderFound, FolderTask
from daq_core.files.reports import RecordedEnd, RepairReport
from daq_core.processes.channel import Channel, ProcessLost
from daq_core.processes.lines import Lines, Message, Present, Vocabulary, line_of
from daq_core.processes.question import EndAfter
from daq_core.receiving.task import Listening, NotListening, ReceiverTask
from daq_core.writing import task
from daq_core.writing.task import Abort, Failed, Hurry, Opened

SAID = (
    *(Present, EndAfter, ReceiverTask, Listening, NotListening, FolderTask, FolderFound, RepairReport),
    *(kind for kind in vars(task).values() if isinstance(kind, type) and kind.__module__ == task.__name__),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
st.register_type_strategy(float, st.floats(allow_nan=False))


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Return any message of a class; what a config may hold is any JSON."""
    has_config = {"config": st.dictionaries(st.text(), JSON)} if kind in (ReceiverTask, task.MapsTask) else {}
    return st.builds(kind, **has_config)


@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_said_arrives_as_it_was_said(kind: type[Message], data: st.DataObject) -> None:
    said = data.draw(messages(kind))
    line = line_of(said)
    assert line.count(b"\n") == 1
    assert Vocabulary(Present, kind).read(line) == said


def test_a_path_that_is_no_text_arrives_too() -> None:
    said = Abort(os.fsdecode(b"/data/\xff.h5"))
    assert Vocabulary(Abort).read(line_of(said)) == said


@pytest.mark.parametrize(
    "line",
    [line_of(Hurry()), b'{"Failed": {"reason": "full"}}', b'{"Failed": {"reason": 1, "n_completed": 2}}'],
    ids=["not expected", "a field is missing", "another type"],
)
def test_what_does_not_fit_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"Hurry is not expected here|validation error for Failed"):
        Vocabulary(Failed, Opened).read(line)


def pair(*kinds: type[Message]) -> tuple[Lines, Lines]:
    ours, theirs = socket.socketpair()
    return Lines(ours, Vocabulary(*kinds)), Lines(theirs, Vocabulary(*kinds))


def test_messages_come_one_by_one_and_whoever_is_gone_is_told_nothing() -> None:
    ours, theirs = pair(Opened, Failed)
    assert ours.hear(0) is None
    assert not ours.gone
    theirs.tell(Opened())
    theirs.tell(Failed("disk full", 3))
    theirs.close()
    assert [ours.hear(None), ours.hear(None)] == [Opened(), Failed("disk full", 3)]
    assert ours.hear(None) is None
    assert ours.gone
    ours.tell(Opened())
    ours.close()


async def test_a_process_that_dies_in_the_middle_of_a_word_is_lost() -> None:
    for half in (b"", line_of(Failed("disk full", 3))[:-1], line_of(Opened())[:5]):
        ours, theirs = socket.socketpair()
        channel = await Channel.to(ours, Vocabulary(Opened, Failed))
        theirs.sendall(line_of(Present(7)) + half)
        theirs.close()
        await channel.meet()
        with pytest.raises(ProcessLost, match="process 7 ended unexpectedly"):
            await channel.hear()
        channel.close()


async def test_the_last_word_of_a_process_is_heard_although_it_was_told_something_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.to(ours, Vocabulary(Failed))
    theirs.sendall(line_of(Failed("disk full", 3)))
    theirs.close()
    for _ in range(3):
        channel.tell(Hurry())
        await asyncio.sleep(0)
    assert await channel.hear() == Failed("disk full", 3)
    channel.close()


async def test_a_message_that_is_larger_than_the_socket_takes_arrives_whole() -> None:
    @dataclass(frozen=True)
    class Long:
        text: str

    ours, theirs = socket.socketpair()
    channel = await Channel.to(ours, Vocabulary())
    said = Long("x" * 3_000_000)
    channel.tell(said)
    heard = await asyncio.to_thread(Lines(theirs, Vocabulary(Long)).hear, None)
    assert heard == said
    channel.close()
    theirs.close()


def test_a_report_has_its_end_as_a_value() -> None:
    end = RecordedEnd("7", "FINISHED", "Completed.", {"missing_packets": 0})
    said = RepairReport("/data/a.h5", "intact", 5, "/data/a.h5 needs no repair.", end)
    assert Vocabulary(RepairReport).read(line_of(said)) == said
