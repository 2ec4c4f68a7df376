"""Who may read and put what by Channel Access: C clients are told as by a C IOC, others are refused."""

from __future__ import annotations

import logging
import os
import pwd
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from ioc import access_rules
from ioc.access_control import AccessControl
from ioc.own_addresses import own_addresses
from ioc.pvs import PVS
from tests.ca_wire import (
    ACCESS_RIGHTS,
    CHAR,
    CLIENT_NAME,
    CREATE,
    DOUBLE,
    ENUM,
    ERROR,
    EVENT_ADD,
    HOST_NAME,
    LONG,
    READ,
    READ_NOTIFY,
    STRING,
    WRITE,
    WRITE_NOTIFY,
    Answer,
    Connection,
    message,
)
from tests.conftest import StartService
from tests.epics_peer import ECA_NORMAL, EpicsPeer
from tests.ioc_thread import IocThread
from tests.service import JUNGFRAU_2
from tests.soft_ioc import ROOT, SoftIoc

ME = pwd.getpwuid(os.geteuid()).pw_name  # as the C library claims it
READ_ONLY = "ASG(DEFAULT) {RULE(1, READ)}"
NOTHING = "ASG(DEFAULT) {RULE(1, NONE)}"
EVERYTHING = "ASG(DEFAULT) {RULE(1, WRITE, TRAPWRITE)}"
ECA_NORDACCESS, ECA_NOWTACCESS = 368, 376  # caerr.h
TIME_LONG = 19
ANY_CHANGE = struct.pack(">fffHH", 0, 0, 0, 1, 0)  # of a monitor: DBE_VALUE


def config() -> DaqConfig:
    return DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


@dataclass
class Pair:
    """Our IOC and a C IOC, with the same PVs and the same access file."""

    file: Path
    ours: IocThread
    theirs: SoftIoc

    def use(self, text: str) -> None:
        self.file.write_text(text)
        self.ours.do(self.ours.ioc._commands.access.reload())
        self.theirs.read_access_file()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    file = tmp_path_factory.mktemp("access") / "site.acf"
    file.write_text(READ_ONLY)
    with IocThread(config(), access=AccessControl(file)) as ours, SoftIoc(ours.prefix, file) as theirs:
        yield Pair(file, ours, theirs)


@pytest.fixture
def ioc(pair: Pair) -> IocThread:
    return pair.ours


def assert_same_rights(pair: Pair, names: dict[str, bool]) -> list[tuple[bool, bool]]:
    """Demand the rights that a C IOC gives, without write access to PVs that cannot be put (False)."""
    with EpicsPeer(pair.ours.ca_port) as ours, EpicsPeer(pair.theirs.port) as theirs:
        found, wanted = ours.rights(*names), theirs.rights(*names)
    expected = [(read, write and puts) for (read, write), puts in zip(wanted, names.values(), strict=True)]
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))
    return found


@pytest.mark.parametrize(
    ("text", "some"),
    [
        (READ_ONLY, (True, False)),
        (NOTHING, (False, False)),
        (EVERYTHING, (True, True)),
        ("ASG(DEFAULT) {RULE(0, READ) RULE(1, NONE)}", (False, False)),
        ("UAG(u) {ME}\nASG(DEFAULT) {RULE(1, READ)}\nASG(RW) {RULE(1, WRITE) {UAG(u)}}", (True, True)),
        ("UAG(u) {somebody}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE) {UAG(u)}}", (True, False)),
        (
            "HAG(h) {localhost}\nASG(DEFAULT) {RULE(1, READ)}\nASG(CMD) {RULE(0, WRITE) {HAG(h)}}",
            (True, True),
        ),
        ("HAG(h) {192.0.2.99}\nASG(RW) {RULE(1, READ) RULE(1, WRITE) {HAG(h)}}", (False, False)),
        (
            "UAG(u) {ME}\nHAG(h)\nASG(ADM) {RULE(1, READ) {UAG(u)} RULE(1, WRITE) {UAG(u) HAG(h)}}",
            (True, False),
        ),
    ],
)
def test_a_c_client_has_the_rights_that_a_c_ioc_gives_it(
    pair: Pair, text: str, some: tuple[bool, bool]
) -> None:
    pair.use(text.replace("ME", f'"{ME}"'))
    put = "DAQ:NImages DAQ:NImages.VAL DAQ:Stop DAQ:CfgJson HDF1:FilePath HDF1:Capture IOC:READACF cam1:SizeX"
    read = "DAQ:State_RBV DAQ:State_RBV.DESC DAQ:NImages.DRVH DAQ:Stop.ASG DAQ:CfgJson.NORD"
    names = {pair.ours.pv(name): name in put.split() for name in f"{put} {read}".split()}
    assert some in assert_same_rights(pair, names)


@pytest.mark.parametrize(
    ("operators", "experts", "may_put"),
    [("somebody", "somebody", set()), (ME, "somebody", {"RW", "CMD"}), (ME, ME, {"RW", "CMD", "ADM"})],
)
def test_the_example_means_the_same_in_a_c_ioc(
    pair: Pair, operators: str, experts: str, may_put: set[str]
) -> None:
    example = (ROOT / "db/daq.acf").read_text()
    pair.use(example.replace("{operator}", f'{{"{operators}"}}').replace("{expert}", f'{{"{experts}"}}'))
    found = assert_same_rights(pair, {row.pv(pair.ours.prefix): row.put is not None for row in PVS})
    assert found == [(True, row.access in may_put) for row in PVS]


def test_every_field_asg_is_that_of_the_c_record(pair: Pair) -> None:
    pair.use(READ_ONLY)
    with EpicsPeer(pair.ours.ca_port) as ours, EpicsPeer(pair.theirs.port) as theirs:
        for name in ("DAQ:State_RBV.ASG", "DAQ:NImages.ASG", "DAQ:Stop.ASG", "IOC:READACF.ASG"):
            assert ours.text(pair.ours.pv(name)) == theirs.text(pair.ours.pv(name))


# -- rules change -----------------------------------------------------------------------------


def test_readacf_tells_connected_clients_and_ends_and_begins_their_monitors(
    pair: Pair, ioc: IocThread
) -> None:
    pair.use("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)} ASG(RW) {RULE(1, WRITE)}")
    n_images, readacf, read_only = ioc.pv("DAQ:NImages"), ioc.pv("IOC:READACF"), ioc.pv("IOC:ReadOnly_RBV")
    with EpicsPeer(ioc.ca_port) as client, EpicsPeer(ioc.ca_port) as expert:
        assert client.put(n_images, 1) == ECA_NORMAL
        client.monitor(n_images)
        expert.monitor(readacf, read_only)
        assert client.rights(n_images) == [(True, True)]

        pair.file.write_text("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)} ASG(RW) {RULE(1, NONE)}")
        assert expert.put(readacf, 1) == ECA_NORMAL
        client.wait_for_rights(n_images, read=False, write=False)
        with pytest.raises(AssertionError, match="Write access denied"):
            client.put(n_images, 2)
        with pytest.raises(AssertionError, match="Read access denied"):
            client.get(n_images)
        ioc.do(put_inside(ioc, 3))
        before = client.updates(n_images)

        pair.file.write_text("ASG(DEFAULT) {RULE(1, WRITE)}")
        assert expert.put(readacf, 1) == ECA_NORMAL
        client.wait_for_rights(n_images, read=True, write=True)
        client.wait_for(n_images, 3)
        assert client.updates(n_images) == [*before, 3]
        assert client.put(n_images, 4) == ECA_NORMAL
        assert expert.updates(readacf)[:3] == ["No", "Reload", "No"]
        expert.wait_for(read_only, "No")
        assert expert.updates(read_only)[0] == "Yes"


async def put_inside(ioc: IocThread, n_images: int) -> None:
    from ioc.commands import Client

    await ioc.ioc._commands.put_n_images(n_images, Client("", "", ""))


def test_a_wrong_file_is_refused_and_the_rules_stay(pair: Pair, ioc: IocThread) -> None:
    pair.use(EVERYTHING)
    with EpicsPeer(ioc.ca_port) as client:
        last_error, message = ioc.pv("IOC:LastError_RBV"), ioc.pv("DAQ:CmdMessage_RBV")
        pair.file.write_text('ASG(DEFAULT) {\n  INPA("X:Y")\n}')
        assert client.put(ioc.pv("IOC:READACF"), 1) != ECA_NORMAL
        says = f"{pair.file}, line 2: INPA: rules cannot depend on PVs here"
        assert client.text(message).startswith(says)
        assert client.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
        wait_until(lambda: client.text(last_error).startswith(f"READACF: {says}"))
        assert client.rights(ioc.pv("DAQ:NImages")) == [(True, True)]
        assert client.put(ioc.pv("DAQ:NImages"), 5) == ECA_NORMAL


@pytest.mark.parametrize(
    ("text", "read_only", "access"),
    [
        (EVERYTHING, "No", "Running"),
        (READ_ONLY, "Yes", "Running"),
        ("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)}", "Yes", "Maintenance"),
    ],
)
def test_the_pvs_say_whether_commands_are_disabled(
    pair: Pair, ioc: IocThread, text: str, read_only: str, access: str
) -> None:
    pair.use(text)
    with EpicsPeer(ioc.ca_port) as client:
        client.monitor(ioc.pv("IOC:ReadOnly_RBV"), ioc.pv("IOC:ACCESS"))
        wait_until(lambda: client.updates(ioc.pv("IOC:ReadOnly_RBV"))[-1] == read_only)
        wait_until(lambda: client.updates(ioc.pv("IOC:ACCESS"))[-1] == access)
        assert client.info(ioc.pv("IOC:ReadOnly_RBV"))["severity"] == int(read_only == "Yes")
        assert client.info(ioc.pv("IOC:ACCESS"))["severity"] == int(access == "Maintenance")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- what a client may not do, it cannot do -----------------------------------------------------


class Wire(Connection):
    """A client that does what the C library would not: it puts and reads what it was told that it may not."""

    def __init__(
        self,
        port: int,
        user: bytes = b"",
        *,
        host: bytes = b"",
        source: str = "127.0.0.1",
        to: str = "127.0.0.1",
    ) -> None:
        super().__init__(port, to=to, source=source)
        self._user, self._host = user, host

    def __enter__(self) -> Wire:
        super().__enter__()
        self.claim(HOST_NAME, self._host)
        self.claim(CLIENT_NAME, self._user)
        return self

    def claim(self, what: int, name: bytes) -> None:
        self.send(message(what, name + b"\0"))

    def next(self, wanted: int) -> Answer:
        """Return the next answer of a kind."""
        (found,) = self.answers(wanted)
        return found

    def channel(self, name: str) -> tuple[int, int]:
        """Return a channel's server id, and its rights: 1 read, 2 write."""
        self.send(message(CREATE, name.encode() + b"\0", p1=next(self._ids), p2=13))
        rights = self.next(ACCESS_RIGHTS).p2
        return self.next(CREATE).p2, rights

    def told(self, n: int) -> list[tuple[int, int, int]]:
        """Return the next n messages as command, first parameter, size; sorted, for C IOCs vary the order."""
        found = [self.answer() for _ in range(n)]
        return sorted(
            (answer.command, answer.p1, len(answer.payload)) for answer in found if answer is not None
        )

    def put(self, sid: int, value: int, command: int = WRITE) -> None:
        self.send(message(command, struct.pack(">i", value), kind=LONG, n=1, p1=sid, p2=7))


@pytest.mark.parametrize("command", [WRITE, WRITE_NOTIFY])
def test_a_denied_put_is_refused_logged_and_changes_nothing(
    pair: Pair, ioc: IocThread, caplog: pytest.LogCaptureFixture, command: int
) -> None:
    pair.use(READ_ONLY)
    ioc.do(put_inside(ioc, 3))
    rejected = ioc.ioc._commands.last
    with Wire(ioc.ca_port, b"mallory", host=b"evil") as wire:
        sid, rights = wire.channel(ioc.pv("DAQ:NImages"))
        assert rights == 1
        wire.put(sid, 77, command)
        refusal = wire.next(ERROR)
        assert refusal.p2 == ECA_NOWTACCESS
        assert b"the access rules do not allow it" in refusal.payload
    assert ioc.ioc._commands.setpoints.n_images == 3
    assert ioc.ioc._commands.last is rejected, "who may not put cannot change what operators see"
    (line,) = [r for r in caplog.records if r.name == "ioc.puts"]
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
            ioc.do(ioc.ioc._commands.access.reload())
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
    with caplog.at_level(logging.DEBUG, "ioc.puts"), Wire(ioc.ca_port, b"alice", host=b"pc7") as wire:
        sid, _ = wire.channel(name)
        for value in (12, 0):
            wire.put(sid, value, WRITE_NOTIFY)
        assert wire.next(WRITE_NOTIFY).p1 == ECA_NORMAL
        wire.next(ERROR)
    refusal = f"{name} takes 1 to 2147483647, got 0."
    lines = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "ioc.puts"]
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
    with caplog.at_level(logging.DEBUG, "ioc.puts"), Wire(ioc.ca_port, b"alice", host=b"pc7") as wire:
        for pv, data, kind, n, _ in puts:
            sid, _ = wire.channel(ioc.pv(pv))
            wire.send(message(WRITE_NOTIFY, data, kind=kind, n=n, p1=sid, p2=1))
            wire.next(ERROR)
    lines = [record.getMessage() for record in caplog.records if record.name == "ioc.puts"]
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
    (line,) = [r.getMessage() for r in caplog.records if r.name == "ioc.puts"]
    assert line.isprintable(), ascii(line)
    assert "?[2J??ERROR ??ünny" in line
    assert "refused" in line


# -- the whole program ------------------------------------------------------------------------


def test_serve_reads_the_file_and_logs_puts(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "site.acf"
    file.write_text("UAG(u) {alice}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE, TRAPWRITE) {UAG(u)}}")
    service = start_service(acf=file)
    name = service.prefix + "DAQ:NImages"
    with EpicsPeer(service.ca_port) as peer, Wire(service.ca_port, b"alice", host=b"pc7") as alice:
        assert peer.rights(name) == [(True, False)]
        sid, _ = alice.channel(name)
        alice.put(sid, 21, WRITE_NOTIFY)
        assert alice.next(WRITE_NOTIFY).p1 == ECA_NORMAL
        assert peer.get(name) == 21
    assert f"INFO    ioc.puts: alice@pc7 (127.0.0.1) puts {name} = 21: accepted" in service.log()


def test_a_wrong_file_ends_the_start_with_one_line(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "site.acf"
    file.write_text('ASG(DEFAULT) {\n RULE(1, WRITE) { CALC("A=1") }\n}')
    config_file = tmp_path / "detector.json"
    config_file.write_text(config().as_json())
    command = ["serve", "--config", str(config_file), "--prefix", "X:", "--no-redis", "--acf", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "ioc", *command], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"std-daq-ioc: {file}, line 2: CALC: rules cannot depend on PVs here;")
    assert done.stderr.count("\n") == 1
