"""Access files: never anything but a clear error, and what they grant is what EPICS Base grants."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daq_core.errors import InvalidConfig
from ioc.access.file import AccessFile, parse, read_access_file
from ioc.access.rules import AccessRules
from tests.channel_access.c_access_security import Asked, AsLib

USERS = ("alice", "bob", "carol d")
ADDRESSES = {"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.2", "localhost": "127.0.0.1"}
GROUPS = ("DEFAULT", "RO", "CMD")
ASKED: list[Asked] = list(
    itertools.product((*GROUPS, "ADM"), (0, 1), (*USERS, ""), ("127.0.0.1", "127.0.0.2"))
)
ONE_LINE = re.compile(r"file\.acf, line \d+: [^\n]+\.")
NO_MEANING_HERE = ("take it out", "take out the rule", "ASG(DEFAULT) is there already")
"""Ends of the errors about what a C IOC would take."""


def rules_of(found: AccessFile) -> AccessRules:
    names = {host.name for hosts in found.hosts.values() for host in hosts}
    return found.rules({name: frozenset({ADDRESSES[name]}) for name in names})


def word(draw: st.DrawFn, text: str) -> str:
    """Write a name, in quotes where it needs them and now and then where not."""
    return f'"{text}"' if " " in text or draw(st.booleans()) else text


def members(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    found = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    return "{" + ", ".join(word(draw, name) for name in found) + "}" if found else ""


@st.composite
def files(draw: st.DrawFn) -> list[str]:
    """Write a valid file, as pieces between which there may be anything blank."""
    uags = draw(st.lists(st.sampled_from(("u1", "u2", "u-3")), unique=True))
    hags = draw(st.lists(st.sampled_from(("h1", "h2")), unique=True))
    text = [f"UAG({word(draw, uag)}) {members(draw, USERS)}" for uag in uags]
    text += [f"HAG({word(draw, hag)}) {members(draw, tuple(ADDRESSES))}" for hag in hags]
    for group in draw(st.lists(st.sampled_from(GROUPS), min_size=1, unique=True)):
        text.append(f"ASG({word(draw, group)})")
        if n_rules := draw(st.integers(0, 4)):
            text += ["{", *(rule(draw, uags, hags) for _ in range(n_rules)), "}"]
    return re.findall(r'"[^"]*"|\w[\w.:-]*|[(){},]', " ".join(text))


def groups(known: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(known), min_size=1, max_size=2)


def rule(draw: st.DrawFn, uags: list[str], hags: list[str]) -> str:
    level, grant = draw(st.sampled_from((0, 1, 2))), draw(st.sampled_from(("NONE", "READ", "WRITE")))
    trap = draw(st.sampled_from(("", ", TRAPWRITE", ", NOTRAPWRITE")))
    conditions = [
        f"{kind}({', '.join(draw(groups(known)))})"
        for kind, known in (("UAG", uags), ("HAG", hags))
        if known and draw(st.booleans())
    ]
    return f"RULE({level}, {grant}{trap})" + (" { " + " ".join(conditions) + " }" if conditions else "")


def joined(draw: st.DrawFn, pieces: list[str]) -> str:
    blanks = st.sampled_from((" ", "\n", "\t", "\r\n", " # and a comment: ASG(X) {\n"))
    return "".join(piece + draw(blanks) for piece in pieces)


@st.composite
def valid(draw: st.DrawFn) -> str:
    return joined(draw, draw(files()))


@st.composite
def nearly_valid(draw: st.DrawFn) -> str:
    """Write a file with a piece too few, too many, or another one in its place."""
    pieces = draw(files())
    at = draw(st.integers(0, len(pieces) - 1))
    others = (
        "(",
        ")",
        "{",
        "}",
        ",",
        "UAG",
        "ASG",
        "RULE",
        "READ",
        "1",
        "-1",
        "1.5",
        "CALC",
        "INPB",
        "METHOD",
        '"',
    )
    new = draw(st.lists(st.sampled_from((*pieces, *others)), max_size=2))
    return joined(draw, [*pieces[:at], *new, *pieces[at + draw(st.integers(0, 1)) :]])


@pytest.fixture(scope="module")
def c() -> Iterator[AsLib]:
    with AsLib() as c:
        yield c


@given(text=valid())
def test_a_file_grants_what_it_grants_in_a_c_ioc(c: AsLib, text: str) -> None:
    rules = rules_of(parse(text, "file.acf"))
    assert [tuple(rules.rights(*asked)) for asked in ASKED] == c.rights(text, ASKED)


def read(text: str) -> AccessFile | str:
    """Return what a text says, or the error that says why it says nothing."""
    try:
        return parse(text, "file.acf")
    except InvalidConfig as refused:
        return str(refused)


@given(text=nearly_valid())
def test_what_is_read_here_is_read_by_a_c_ioc_and_means_the_same(c: AsLib, text: str) -> None:
    ours, theirs = read(text), c.rights(text, ASKED)
    if isinstance(ours, str):
        assert ONE_LINE.fullmatch(ours)
        assert theirs is None or any(end in ours for end in NO_MEANING_HERE), ours
    else:
        rules = rules_of(ours)
        assert [tuple(rules.rights(*asked)) for asked in ASKED] == theirs


words = st.sampled_from((*'(){},x1"#\n\\', "UAG", "HAG", "ASG", "RULE", "READ", "CALC", "INPA"))


@given(st.text() | st.lists(words).map(" ".join))
@example('UAG("a\\')
@example("ASG(\x00)")
def test_any_text_is_a_file_or_a_clear_error(text: str) -> None:
    found = read(text)
    assert isinstance(found, AccessFile) or ONE_LINE.fullmatch(found), found


@given(st.binary())
def test_any_bytes_are_a_file_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.acf"
    file.write_bytes(data)
    with contextlib.suppress(InvalidConfig):
        read_access_file(file)
