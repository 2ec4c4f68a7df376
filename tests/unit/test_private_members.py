"""Tests, benchmarks and docs use what the product shows them: a private name may change at any time.

A name that the product defines with a leading underscore is its own. Other libraries' private names
(``os._exit``, a named tuple's ``_replace``) are no business of this test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("daq_core", "ioc", "rest_bridge")
USERS = ("tests", "benchmarks", "docs", "examples")
PLANTED = {"_pipeline", "_run", "_step"}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of the underscore


def sources(*folders: str) -> list[Path]:
    return [source for folder in folders for source in sorted((ROOT / folder).rglob("*.py"))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.expr) -> bool:
    """Tell ``self`` and ``cls``, through which a class reaches its own members."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def defined_in(tree: ast.AST) -> set[str]:
    """Return the private names of functions, classes, constants and attributes that a file defines."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if is_private(name)} - OF_NAMED_TUPLES


def reached_into(tree: ast.AST, private: set[str]) -> Iterator[str]:
    """Yield each place where a file uses one of these names of somebody else's."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name) if name in private and not is_own(owner):
                yield f"{node.lineno}: .{name}"
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PRODUCT:
                yield from (f"{node.lineno}: {alias.name}" for alias in names if is_private(alias.name))
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr")
                | ast.Attribute(attr="setattr" | "delattr"),
                args=[owner, ast.Constant(value=str(name)), *_],
            ) if name in private and not is_own(owner):
                yield f"{node.lineno}: {name!r}"


@pytest.fixture(scope="module")
def private() -> set[str]:
    names = set().union(*(defined_in(ast.parse(source.read_text())) for source in sources(*PRODUCT)))
    assert len(names) > 500
    return names


def test_nobody_reaches_into_private_members_of_the_product(private: set[str]) -> None:
    users = sources(*USERS)
    found = {
        str(user.relative_to(ROOT)): places
        for user in users
        if (places := [*reached_into(ast.parse(user.read_text()), private)])
    }
    assert len(users) > 200
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "daq._pipeline.ring",
        "bench.daq._run = None",
        "self.daq._step(event)",
        "from daq_core.control.daq import _ended",
        "getattr(daq, '_run')",
        "monkeypatch.setattr(daq, '_run', None)",
    ],
)
def test_a_reach_into_a_private_member_is_found(line: str) -> None:
    assert [*reached_into(ast.parse(line), PLANTED)]


@pytest.mark.parametrize("line", ["os._exit(0)", "self._run = None", "packet._replace(n=1)", "daq.ring"])
def test_what_is_ones_own_or_another_librarys_is_not_found(line: str) -> None:
    assert not [*reached_into(ast.parse(line), PLANTED)]
