"""Access files: what each kind of mistake is answered with, and whom the rules let do what."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from daq_core.errors import InvalidConfig
from ioc.access.control import AccessControl
from ioc.access.file import MAX_BYTES, parse
from ioc.access.own_addresses import broadcast_addresses, own_addresses
from ioc.access.rules import THIS_MACHINE_ONLY, AccessRules, Rights

ALL, READ, NOTHING = Rights(True, True, True), Rights(True, False), Rights(False, False)
FILE = """
UAG(operators) {alice, "b ob"}   # claimed names
HAG(here) {127.0.0.1, localhost}
ASG(DEFAULT) { RULE(1, READ) }
ASG(CMD) { RULE(1,READ) RULE(0,WRITE,TRAPWRITE) { UAG(operators) HAG(here) } }
ASG(ADM)
"""


def rules(text: str) -> AccessRules:
    found = parse(text, "x.acf")
    names = {host.name for hosts in found.hosts.values() for host in hosts}
    return found.rules({name: frozenset({"127.0.0.1"}) for name in names})


@pytest.mark.parametrize(
    ("client", "rights"),
    [
        (("CMD", 0, "alice", "127.0.0.1"), ALL),
        (("CMD", 0, "b ob", "127.0.0.1"), ALL),
        (("CMD", 0, "Alice", "127.0.0.1"), READ),
        (("CMD", 0, "alice", "10.0.0.1"), READ),
        (("CMD", 1, "alice", "127.0.0.1"), READ),
        (("ADM", 0, "alice", "127.0.0.1"), NOTHING),
        (("RW", 0, "alice", "127.0.0.1"), READ),
    ],
)
def test_a_client_may_do_the_most_that_any_rule_of_the_group_grants(
    client: tuple[str, int, str, str], rights: Rights
) -> None:
    assert rules(FILE).rights(*client) == rights


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "there is nothing in it; give ASG(DEFAULT) at least"),
        ("# only\n# comments\n", 3, "there is nothing in it"),
        ('ASG(A) {\n  INPA("X:Y")\n}', 2, "INPA: rules cannot depend on PVs here; take it out"),
        ('ASG(A) {\n RULE(1,WRITE) {\n CALC("A=1")}}', 3, "CALC: rules cannot depend on PVs here"),
        (
            'ASG(A) { RULE(1,WRITE) {\nMETHOD("x509")}}',
            2,
            "only UAG and HAG are conditions here, got 'METHOD'",
        ),
        (
            "UAG(u) {a}\nHAG(h) {b}\nASG(A) {RULE(1,READ) {UAG(u), HAG(h)}}",
            3,
            "no comma between the conditions",
        ),
        ("ASG(A) { RULE(1,RPC) }", 1, "a rule grants READ, WRITE or NONE here, not 'RPC'"),
        ("ASG(A) { RULE(-1,READ) }", 1, "expected the level of a RULE, 0 or 1, got '-1'"),
        ("ASG(A) { RULE(1,READ,LOG) }", 1, "expected TRAPWRITE or NOTRAPWRITE, got 'LOG'"),
        ("ASG(A) { }", 1, "expected a RULE in the ASG, got '}'"),
        ("ASG(A) { RULE(1,READ)", 1, "expected a RULE in the ASG, got the end of the file"),
        ("UAG(u) {}", 1, "expected a user, got '}'"),
        ("UAG(u) {a,}", 1, "expected a user, got '}'"),
        ('UAG(u) {""}', 1, "expected a user, got an empty text"),
        ("UAG(u) {7}", 1, "expected a user, got '7'; put it in quotes"),
        ("UAG(RULE) {a}", 1, "expected the name of the UAG, got 'RULE'; put it in quotes"),
        ("UAG(u) {a}\nUAG(u) {b}", 2, "UAG(u) is there already; make one of the two"),
        ("ASG(A) { RULE(1,READ) {UAG(u)}}\nUAG(u) {a}", 1, "no UAG(u) is above; define it before"),
        ("UAG(u) {$(USER)}", 1, "'$': macros are not expanded here; write their values"),
        ('UAG(u) {"a}\n', 1, "a quoted text has no end on its line"),
        ("UAG(ü) {a}", 1, r"'\xfc' can only stand between quotes"),
        ("METHODS(a) {b}", 1, "expected UAG, HAG or ASG, got 'METHODS'; take it out"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_do(text: str, line: int, says: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        parse(text, "x.acf")
    assert str(refusal.value).startswith(f"x.acf, line {line}: ")
    assert says in str(refusal.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.acf"
    with pytest.raises(InvalidConfig, match=r"x\.acf cannot be read: No such file"):
        AccessControl(file)
    file.write_bytes(b"ASG(A)\nUAG(\xff)")
    with pytest.raises(InvalidConfig, match="line 2: this is not UTF-8"):
        AccessControl(file)
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InvalidConfig, match="more than"):
        AccessControl(file)


def test_a_host_that_is_not_known_is_nobody_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(host: str, *how: object) -> list[tuple[object, ...]]:
        if host != "console":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, 0, 0, "", ("10.0.0.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    file = tmp_path / "x.acf"
    file.write_text("HAG(h) {console,\n no-such-host}\nASG(DEFAULT) {RULE(1,READ) RULE(1,WRITE) {HAG(h)}}")
    found = AccessControl(file).rules
    assert found.rights("CMD", 0, "", "10.0.0.7").write
    assert not found.rights("CMD", 0, "", "10.0.0.8").write
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "x.acf, line 2: host 'no-such-host' is not known" in line


def test_without_a_file_all_read_and_only_this_machine_puts() -> None:
    found = THIS_MACHINE_ONLY
    for address in ("127.0.0.1", "127.3.2.1", *own_addresses()):
        assert found.rights("CMD", 0, "whoever", address) == ALL, address
    for address in ("192.0.2.77", "10.255.255.254", "8.8.8.8"):
        assert address not in own_addresses()
        assert found.rights("CMD", 0, "root", address) == READ, address
    assert not found.read_only


def test_the_addresses_of_this_machine_are_what_a_socket_can_be_bound_to() -> None:
    assert "127.0.0.1" in own_addresses()
    for address in own_addresses():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))


def test_the_broadcast_addresses_are_what_the_kernel_sends_to_with_leave_alone() -> None:
    found = broadcast_addresses()
    if not found:
        pytest.skip("no interface here has a broadcast address")
    for address in found:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(PermissionError):
                sock.connect((address, 9))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.connect((address, 9))


@pytest.mark.parametrize(
    ("text", "read_only", "maintenance"),
    [
        ("ASG(DEFAULT) {RULE(1,READ)}", True, False),
        ("ASG(DEFAULT) {RULE(1,WRITE)}", False, False),
        ("UAG(nobody)\nASG(CMD) {RULE(1,WRITE) {UAG(nobody)}}", True, False),
        (
            "UAG(nobody)\nUAG(me) {me}\nASG(CMD) {RULE(1,WRITE) {UAG(nobody)}}\nASG(ADM) {RULE(1,WRITE)}",
            True,
            True,
        ),
        ("UAG(me) {me}\nASG(CMD) {RULE(1,WRITE) {UAG(me)}}", False, False),
    ],
)
def test_commands_are_disabled_when_no_rule_lets_anybody_put_them(
    text: str, read_only: bool, maintenance: bool
) -> None:
    found = rules(text)
    assert (found.read_only, found.maintenance) == (read_only, maintenance)
