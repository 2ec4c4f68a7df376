"""What a client may not do by Channel Access it cannot do, whatever it sends; and every put is a log line."""

from __future__ import annotations

import logging
import struct

import pytest

from ioc.access import rules as access_rules
from ioc.access.own_addresses import own_addresses
from tests.channel_access.access_pair import EVERYTHING, NOTHING, READ_ONLY, Pair, Wire, config, put_inside
from tests.channel_access.ca_wire import (
    ACCESS_RIGHTS,
    CHAR,
    CLIENT_NAME,
    DOUBLE,
    ENUM,
    ERROR,
    EVENT_ADD,
    LONG,
    READ,
    READ_NOTIFY,
    STRING,
    WRITE,
    WRITE_NOTIFY,
    message,
)
from tests.channel_access.epics_peer import ECA_NORMAL
from tests.channel_access.ioc_thread import IocThread

ECA_NORDACCESS, ECA_NOWTACCESS = 368, 376  # caerr.h
TIME_LONG = 19
ANY_CHANGE = struct.pack(">fffHH", 0, 0, 0, 1, 0)  # of a monitor: DBE_VALUE


@pytest.fixture
def ioc(pair: Pair) -> IocThread:
    return pair.ours


@pytest.mark.parametrize("command", [WRITE, WRITE_NOTIFY])
def test_a_denied_put_is_refused_logged_and_changes_nothing(
    pair: Pair, ioc: IocThread, caplog: pytest.LogCaptureFixture, command: int
) -> None:
    pair.use(READ_ONLY)
    ioc.do(put_inside(ioc, 3))
    rejected = ioc.ioc.commands.last
    with Wire(ioc.ca_port, b"mallory", host=b"evil") as wire:
        sid, rights = wire.channel(ioc.pv("DAQ:NImages"))
        assert rights == 1
        wire.put(sid, 77, command)
        refusal = wire.next(ERROR)
        assert refusal.p2 == ECA_NOWTACCESS
        assert b"the access rules do not allow it" in refusal.payload
    assert ioc.ioc.commands.setpoints.n_images == 3
    assert ioc.ioc.commands.last is rejected, "who may not put cannot change what operators see"
    (line,) = [r for r in caplog.records if r.name == "ioc.channel_access.puts"]
    assert line.levelno == logging.WARNING
    name = ioc.pv("DAQ:NImages")
    assert line.getMessage() == (
        f"mallory@evil (127.0.0.1) puts {name} = 77: refused: {name}: the access rules do not allow it."
    )


def test_a_denied_read_says_so_and_shows_nothing(pair: Pair, ioc: IocThread) -> None:
    pair.use(NOTHING)
    ioc.do(put_inside(ioc, 0x01020304))
    with Wire(ioc.ca_port) as wire:
        sid, rights = wire.channel(ioc.pv("DAQ:NImages"))
        assert rights == 0
        wire.send(message(READ_NOTIFY, kind=TIME_LONG, n=1, p1=sid, p2=5))
        assert wire.next(READ_NOTIFY)[3:] == (ECA_NORDACCESS, 5, bytes(16))
        wire.send(message(READ, kind=LONG, n=1, p1=sid, p2=6))
        assert wire.next(ERROR).p2 == ECA_NORDACCESS
        wire.send(message(EVENT_ADD, ANY_CHANGE, kind=LONG, n=1, p1=sid, p2=9))
        assert wire.next(EVENT_ADD)[3:] == (ECA_NORDACCESS, 9, bytes(8))
        ioc.do(put_inside(ioc, 5))  # not told
        pair.use(READ_ONLY)
        assert wire.next(ACCESS_RIGHTS).p2 == 1
        assert wire.next(EVENT_ADD)[3:] == (ECA_NORMAL, 9, struct.pack(">i4x", 5))
        pair.use(NOTHING)
        assert wire.next(EVENT_ADD)[3:] == (ECA_NORDACCESS, 9, bytes(8))


def test_a_client_without_read_access_is_told_what_a_c_ioc_tells(pair: Pair) -> None:
    pair.use(NOTHING)
    with Wire(pair.ours.ca_port) as ours, Wire(pair.theirs.port) as theirs:
        told: list[list[tuple[int, int, int]]] = [[], []]
        for wire, seen in zip((ours, theirs), told, strict=True):
            sid, _ = wire.channel(pair.ours.pv("DAQ:NImages"))
            for kind in (LONG, TIME_LONG):
                wire.send(message(READ_NOTIFY, kind=kind, n=1, p1=sid, p2=kind))
                seen += wire.told(1)
                wire.send(message(EVENT_ADD, ANY_CHANGE, kind=kind, n=1, p1=sid, p2=kind))
                seen += wire.told(1)
        for text in (READ_ONLY, NOTHING, EVERYTHING):
            pair.use(text)
            for wire, seen in zip((ours, theirs), told, strict=True):
                seen += wire.told(3)  # the rights, and an update of each monitor
    assert told[0] == told[1]
    assert [status for command, status, _ in told[0] if command == EVENT_ADD] == [
        *(ECA_NORDACCESS, ECA_NORDACCESS),  # when they were begun
        *(ECA_NORMAL, ECA_NORMAL),
        *(ECA_NORDACCESS, ECA_NORDACCESS),
        *(ECA_NORMAL, ECA_NORMAL),
    ]


def test_a_client_cannot_become_another_when_it_has_a_channel(pair: Pair, ioc: IocThread) -> None:
    pair.use("UAG(u) {alice}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE) {UAG(u)}}")
    with Wire(ioc.ca_port, b"alice") as alice:
        assert alice.channel(ioc.pv("DAQ:NImages"))[1] == 3
    with Wire(ioc.ca_port, b"bob") as bob:
        assert bob.channel(ioc.pv("DAQ:NImages"))[1] == 1
        bob.claim(CLIENT_NAME, b"alice")
        assert bob.channel(ioc.pv("DAQ:NImages"))[1] == 1


def test_a_host_is_the_address_of_the_connection_whatever_the_client_claims(
    pair: Pair, ioc: IocThread
) -> None:
    pair.use("HAG(h) {127.0.0.2}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE) {HAG(h)}}")
    with Wire(ioc.ca_port, host=b"127.0.0.2") as liar, Wire(ioc.ca_port, source="127.0.0.2") as member:
        assert liar.channel(ioc.pv("DAQ:NImages"))[1] == 1
        assert member.channel(ioc.pv("DAQ:NImages"))[1] == 3


def test_without_a_file_only_this_machine_may_put(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [address for address in own_addresses() if not address.startswith("127.")]
    if not others:
        pytest.skip("this machine has no address but loopback's")
    with IocThread(config(), bind=others[0]) as ioc:
        name = ioc.pv("DAQ:NImages")
        with Wire(ioc.ca_port, to=others[0], source=others[0]) as neighbour:
            assert neighbour.channel(name)[1] == 3
            monkeypatch.setattr(
                access_rules, "own_addresses", lambda: ()
            )  # as if it came from another machine
            ioc.do(ioc.ioc.commands.access.reload())
            assert neighbour.next(ACCESS_RIGHTS).p2 == 1
            sid, rights = neighbour.channel(name)
            assert rights == 1
            neighbour.put(sid, 9)
            assert neighbour.next(ERROR).p2 == ECA_NOWTACCESS


# -- the log ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("trap", "level"), [("TRAPWRITE", logging.INFO), ("NOTRAPWRITE", logging.DEBUG)])
def test_a_put_is_one_log_line_with_client_pv_value_and_result(
    pair: Pair, ioc: IocThread, caplog: pytest.LogCaptureFixture, trap: str, level: int
) -> None:
    pair.use(f"ASG(DEFAULT) {{RULE(1, WRITE, {trap})}}")
    name = ioc.pv("DAQ:NImages")
    with (
        caplog.at_level(logging.DEBUG, "ioc.channel_access.puts"),
        Wire(ioc.ca_port, b"alice", host=b"pc7") as wire,
    ):
        sid, _ = wire.channel(name)
        for value in (12, 0):
            wire.put(sid, value, WRITE_NOTIFY)
        assert wire.next(WRITE_NOTIFY).p1 == ECA_NORMAL
        wire.next(ERROR)
    refusal = f"{name} takes 1 to 2147483647, got 0."
    lines = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "ioc.channel_access.puts"]
    assert lines == [
        (level, f"alice@pc7 (127.0.0.1) puts {name} = 12: accepted"),
        (
            logging.INFO,
            f"alice@pc7 (127.0.0.1) puts {name} = 0: refused: {refusal}",
        ),
    ]


def test_a_value_that_means_nothing_is_logged_as_it_was_sent(
    pair: Pair, ioc: IocThread, caplog: pytest.LogCaptureFixture
) -> None:
    """At night the log is all there is: it says what the client tried, not only that it was wrong."""
    pair.use(EVERYTHING)
    puts = [
        ("HDF1:Compression", b"gzip\0", STRING, 1, "'gzip'"),
        ("HDF1:Compression", (99).to_bytes(2, "big"), ENUM, 1, "99"),
        ("DAQ:RunId", b"x" * 400, CHAR, 400, "'" + "x" * 199),
        ("DAQ:NImages", struct.pack(">d", 1.5), DOUBLE, 1, "1.5"),
        ("DAQ:NImages", struct.pack(">2i", 3, 4), LONG, 2, "[3, 4]"),
    ]
    with (
        caplog.at_level(logging.DEBUG, "ioc.channel_access.puts"),
        Wire(ioc.ca_port, b"alice", host=b"pc7") as wire,
    ):
        for pv, data, kind, n, _ in puts:
            sid, _ = wire.channel(ioc.pv(pv))
            wire.send(message(WRITE_NOTIFY, data, kind=kind, n=n, p1=sid, p2=1))
            wire.next(ERROR)
    lines = [record.getMessage() for record in caplog.records if record.name == "ioc.channel_access.puts"]
    for line, (pv, *_, shown) in zip(lines, puts, strict=True):
        assert line.startswith(f"alice@pc7 (127.0.0.1) puts {ioc.pv(pv)} = {shown}: refused: "), line
    assert lines[0].endswith("LZ4, JPEG, got gzip.")
    assert lines[1].endswith("LZ4, JPEG, got 99.")


def test_control_characters_of_a_client_never_reach_the_log(
    pair: Pair, ioc: IocThread, caplog: pytest.LogCaptureFixture
) -> None:
    pair.use(EVERYTHING)
    nasty = "\x1b[2J\r\nERROR \u2028\x7fünny".encode() + b"\xff"
    with caplog.at_level(logging.DEBUG), Wire(ioc.ca_port, nasty, host=nasty) as wire:
        sid, _ = wire.channel(ioc.pv("DAQ:OutputFile"))
        path = b"/tmp/\n\x1b[2J.h5\0"
        wire.send(message(WRITE_NOTIFY, path, kind=CHAR, n=len(path), p1=sid, p2=1))
        wire.next(ERROR)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "ioc.channel_access.puts"]
    assert line.isprintable(), ascii(line)
    assert "?[2J??ERROR ??ünny" in line
    assert "refused" in line
