"""Each word of the ring is written by one kind of process: the source is read, and every write is found.

A word with two writers works until both write at the same moment. So a test looks, and a second
writer that is planted in a copy of the text must be found by it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from daq_core.ring.words import Word

ROOT = Path(__file__).parents[2]
CORE = ROOT / "daq_core"

PROCESS = {
    "control": "control",
    "pipeline": "control",
    "receiving": "receiver",
    "assembling": "receiver",
    "writing": "writer",
}
"""Which kind of process a room of the core works in. One that is not named here may write no word."""
HANDLES = {"receiving/handle.py": "control", "writing/handle.py": "control"}
"""Files of a room that another process uses."""
BEFORE_OTHERS = "carry_over"
"""The function of the ring's own room that fills a new ring, which no other process has yet."""

WRITING_CALLS = {"store_release", "fetch_add", "exchange"}
ARRAYS = {"words", "own"}
"""What an array of words is called; an index of one must name a word."""


def process_of(path: str) -> str:
    """Return the kind of process in which a file of the core works; its room where none is known."""
    room = path.split("/")[0]
    return HANDLES.get(path, PROCESS.get(room, room))


def words_in(index: ast.expr, loops: dict[str, set[str]]) -> set[str]:
    """Return the words that an index names: one, those of a slice, or those that a loop goes through."""
    match index:
        case ast.Attribute(value=ast.Name(id="Word"), attr=name):
            return {name}
        case ast.Name(id=name):
            return loops.get(name, set())
        case ast.Slice(lower=lower, upper=upper):
            ends = [words_in(end, loops) if end is not None else set() for end in (lower, upper)]
            if not all(len(end) == 1 for end in ends):
                return set()
            first, end = (getattr(Word, *names) for names in ends)
            return {name for name, at in Word._asdict().items() if first <= at < end}
    return set().union(*(words_in(part, loops) for part in ast.iter_child_nodes(index) if is_value(part)))


def is_value(node: ast.AST) -> bool:
    return isinstance(node, ast.expr)


def is_array_of_words(array: ast.expr) -> bool:
    name = array.attr if isinstance(array, ast.Attribute) else getattr(array, "id", "")
    return name in ARRAYS


def indices_written(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield (array, index) of everything that is assigned to an element, or stored by a call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield node.value, node.slice
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in WRITING_CALLS:
            yield node.args[0], node.args[1]


def loops_over_words(tree: ast.AST) -> dict[str, set[str]]:
    """Return, for each variable of a loop over words, which words these are."""
    loops: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
            loops[node.target.id] |= words_in(node.iter, {})
    return loops


@cache
def words_written(text: str) -> set[str]:
    """Return the words that a file writes; a write to an array of words that names none is refused."""
    tree = ast.parse(text)
    allowed = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == BEFORE_OTHERS]
    for node in allowed:
        tree.body.remove(node)
    loops = loops_over_words(tree)
    written = set()
    for array, index in indices_written(tree):
        names = words_in(index, loops)
        assert names or not is_array_of_words(array), f"which word is written by {ast.unparse(index)}?"
        written |= names
    return written


def writers(texts: dict[str, str]) -> dict[str, set[str]]:
    """Return for each word the kinds of processes that write it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, text in texts.items():
        for word in words_written(text):
            found[word].add(process_of(path))
    return found


def of_the_core() -> dict[str, str]:
    return {str(path.relative_to(CORE)): path.read_text("utf-8") for path in CORE.rglob("*.py")}


def test_each_word_of_the_ring_is_written_by_one_kind_of_process() -> None:
    found = writers(of_the_core())
    assert {word: kinds for word, kinds in found.items() if len(kinds) > 1} == {}
    assert set(found) == set(Word._asdict()) - {"COUNT"}  # every word has a writer, and no write is missed
    assert set().union(*found.values()) == set(PROCESS.values())


@pytest.mark.parametrize(
    ("path", "line", "word"),
    [
        ("control/daq.py", "self._pipeline.words[Word.DISK_FREE] = n_bytes", "DISK_FREE"),
        ("control/run.py", "pipeline.words[Word.GIVEN_UP] += 1", "GIVEN_UP"),
        ("writing/lead.py", "self.own[Word.LEAVE + number * WRITER_WORDS] = 1", "LEAVE"),
        ("assembling/gate.py", "store_release(ring.words, Word.VALVE, 0)", "VALVE"),
        ("pipeline/pipeline.py", "words[Word.RECEIVED : Word.RUN_EPOCH] = former", "LATE"),
        ("receiving/streams.py", "for word in (Word.CONSUMED, Word.COMPLETED): words[word] = 0", "COMPLETED"),
        ("writing/handle.py", "words[Word.HEARTBEAT], other = 0, 1", "HEARTBEAT"),
        ("ring/prefault.py", "words[Word.PUBLISHED] = 0", "PUBLISHED"),
    ],
)
def test_a_second_writer_that_is_planted_in_a_copy_of_the_text_is_found(
    path: str, line: str, word: str
) -> None:
    texts = of_the_core()
    before = writers(texts)[word]
    texts[path] += f"\n{line}\n"
    assert writers(texts)[word] == before | {process_of(path)}
    assert len(before) == 1
    assert len(writers(texts)[word]) == 2


def test_a_write_that_does_not_name_its_word_is_not_overlooked() -> None:
    with pytest.raises(AssertionError, match="which word is written by first \\+ 1"):
        words_written("def begin(words, first):\n    words[first + 1] = 0\n")
