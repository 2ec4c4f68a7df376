"""Reads an EPICS access security file: the part of its language that has a meaning here.

::

    UAG(operators) {x02da, "opi user"}          # users, as clients claim them
    HAG(consoles) {x02da-cons-01, 129.129.99.7} # hosts, by name or IPv4 address
    ASG(CMD) {
        RULE(1, READ)
        RULE(1, WRITE, TRAPWRITE) { UAG(operators) HAG(consoles) }
    }

The order of things is that of ``asLib.y`` in EPICS Base. What a C IOC would refuse is refused,
and so is what has no meaning here: to ignore a condition would grant more than was meant.
The error is one line with file and line number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from daq_core.errors import InvalidConfig
from ioc.access.lexer import Mistake, Token, tokens
from ioc.access.rules import DEFAULT, AccessRules, Grant, Rule

MAX_BYTES = 1024 * 1024
"""Size of a file that is believed to be one: a large site's has some kilobytes."""

NO_INPUTS = (
    "rules cannot depend on PVs here; take it out, change rules by editing the file and putting IOC:READACF"
)

T = TypeVar("T")


class Host(NamedTuple):
    """A member of a HAG, and the line where it stands."""

    name: str
    line: int


@dataclass
class FileRule:
    """One RULE as it is written, with the names of its groups; None: it has no such condition."""

    level: int
    grant: Grant
    trap: bool = False
    uags: list[str] | None = None
    hags: list[str] | None = None


@dataclass
class AccessFile:
    """What a file says, before any host is looked up."""

    users: dict[str, list[str]] = field(default_factory=dict)  # by UAG
    hosts: dict[str, list[Host]] = field(default_factory=dict)  # by HAG
    groups: dict[str, list[FileRule]] = field(default_factory=dict)  # by ASG

    def rules(self, addresses: Mapping[str, frozenset[str]]) -> AccessRules:
        """Return the rules; `addresses` are those of each host, none where it is not known."""

        def rule(written: FileRule) -> Rule:
            users = hosts = None
            if written.uags is not None:
                users = frozenset(user for uag in written.uags for user in self.users[uag])
            if written.hags is not None:
                members = [host for hag in written.hags for host in self.hosts[hag]]
                hosts = frozenset(address for host in members for address in addresses[host.name])
            return Rule(written.level, written.grant, written.trap, users, hosts)

        groups = {name: tuple(map(rule, rules)) for name, rules in self.groups.items()}
        return AccessRules({DEFAULT: (), **groups})


def read_access_file(file: Path) -> AccessFile:
    """Read and check a file.

    Raises
    ------
    InvalidConfig
        It cannot be read, or something in it is wrong or has no meaning here.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidConfig(f"The access file {file} has more than {MAX_BYTES} bytes: is it one?")
        return parse(data.decode("utf-8"), str(file))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidConfig(f"{file}, line {line}: this is not UTF-8; save it as plain text.") from None
    except OSError as error:
        raise InvalidConfig(f"The access file {file} cannot be read: {error.strerror}.") from None


def parse(text: str, name: str) -> AccessFile:
    """Make sense of a file's text; `name` is what its errors begin with.

    Raises
    ------
    InvalidConfig
        Something is wrong or has no meaning here: ``name, line 7: what; what to do.``
    """
    try:
        return _Parser(tokens(text)).file()
    except Mistake as mistake:
        raise InvalidConfig(f"{name}, line {mistake.line}: {mistake}.") from None


class _Parser:
    """Recursive descent over the tokens; every method reads what it is named after."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = iter(found)
        self._next = next(self._tokens)
        self._file = AccessFile()

    def file(self) -> AccessFile:
        if self._next.kind == "end":
            raise Mistake(self._next, "there is nothing in it; give ASG(DEFAULT) at least")
        while self._next.kind != "end":
            token = self._take()
            match token.text if token.kind == "keyword" else "":
                case "UAG":
                    self._user_group()
                case "HAG":
                    self._host_group()
                case "ASG":
                    self._security_group()
                case _:
                    raise Mistake(token, f"expected UAG, HAG or ASG, got {token}; take it out")
        return self._file

    # -- groups of users, hosts, PVs ---------------------------------------------------------

    def _user_group(self) -> None:
        name = self._new_name("UAG", self._file.users)
        has_members = self._is("{")
        self._file.users[name] = self._list("{", "}", lambda: self._name("a user")) if has_members else []

    def _host_group(self) -> None:
        name = self._new_name("HAG", self._file.hosts)
        self._file.hosts[name] = self._list("{", "}", self._host) if self._is("{") else []

    def _host(self) -> Host:
        line = self._next.line
        return Host(self._name("a host"), line)

    def _security_group(self) -> None:
        name = self._new_name("ASG", self._file.groups)
        rules = self._file.groups[name] = []
        if self._is("{"):
            self._take()
            rules.append(self._rule())
            while not self._is("}"):
                rules.append(self._rule())
            self._take()

    def _new_name(self, kind: str, known: Mapping[str, object]) -> str:
        self._mark("(")
        token = self._next
        name = self._name(f"the name of the {kind}")
        if name in known:
            raise Mistake(token, f"{kind}({name}) is there already; make one of the two")
        self._mark(")")
        return name

    # -- rules -------------------------------------------------------------------------------

    def _rule(self) -> FileRule:
        token = self._take()
        if token.kind == "keyword" and token.text.startswith("INP"):
            raise Mistake(token, f"{token.text}: {NO_INPUTS}")
        if token.kind != "keyword" or token.text != "RULE":
            raise Mistake(token, f"expected a RULE in the ASG, got {token}")
        self._mark("(")
        level = self._level()
        self._mark(",")
        rule = FileRule(level, self._grant())
        if self._is(","):
            self._take()
            rule.trap = self._trap()
        self._mark(")")
        if self._is("{"):
            self._take()
            self._condition(rule)
            while not self._is("}"):
                self._condition(rule)
            self._take()
        return rule

    def _level(self) -> int:
        token = self._take()
        if token.kind != "number" or not re.fullmatch(r"\+?[0-9]{1,9}", token.text):
            raise Mistake(token, f"expected the level of a RULE, 0 or 1, got {token}")
        return int(token.text)

    def _grant(self) -> Grant:
        token = self._next
        name = self._name("READ, WRITE or NONE")
        if name not in Grant.__members__:
            raise Mistake(token, f"a rule grants READ, WRITE or NONE here, not {token}; take it out")
        return Grant[name]

    def _trap(self) -> bool:
        token = self._next
        name = self._name("TRAPWRITE or NOTRAPWRITE")
        if name not in ("TRAPWRITE", "NOTRAPWRITE"):
            raise Mistake(token, f"expected TRAPWRITE or NOTRAPWRITE, got {token}")
        return name == "TRAPWRITE"

    def _condition(self, rule: FileRule) -> None:
        token = self._take()
        if token.kind == "mark" and token.text == ",":
            raise Mistake(token, "there is no comma between the conditions of a rule; take it out")
        match token.text if token.kind == "keyword" else "":
            case "UAG":
                rule.uags = [*(rule.uags or ()), *self._known("UAG", self._file.users)]
            case "HAG":
                rule.hags = [*(rule.hags or ()), *self._known("HAG", self._file.hosts)]
            case "CALC":
                raise Mistake(token, f"CALC: {NO_INPUTS}")
            case _:
                raise Mistake(token, f"only UAG and HAG are conditions here, got {token}; take out the rule")

    def _known(self, kind: str, known: Mapping[str, object]) -> list[str]:
        """Read the groups of a condition, which stand further up in the file."""

        def group() -> str:
            token = self._next
            name = self._name(f"the name of a {kind}")
            if name not in known:
                raise Mistake(token, f"no {kind}({name}) is above; define it before it is used")
            return name

        return self._list("(", ")", group)

    # -- tokens ------------------------------------------------------------------------------

    def _take(self) -> Token:
        token = self._next
        self._next = next(self._tokens, token)  # behind the end is the end
        return token

    def _is(self, mark: str) -> bool:
        return self._next.kind == "mark" and self._next.text == mark

    def _mark(self, *marks: str) -> str:
        token = self._take()
        if token.kind != "mark" or token.text not in marks:
            raise Mistake(token, f"expected {' or '.join(map(repr, marks))}, got {token}")
        return token.text

    def _list(self, opening: str, closing: str, member: Callable[[], T]) -> list[T]:
        """Read at least one member, with commas in between."""
        self._mark(opening)
        members = [member()]
        while self._mark(",", closing) == ",":
            members.append(member())
        return members

    def _name(self, what: str) -> str:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            cure = "; put it in quotes" if token.kind in ("keyword", "number") else ""
            raise Mistake(token, f"expected {what}, got {token}{cure}")
        if not token.text:
            raise Mistake(token, f"expected {what}, got an empty text")
        return token.text
