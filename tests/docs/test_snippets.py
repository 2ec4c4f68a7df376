"""Every command and program of README, tutorial and how-to pages does what the page says."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.docs.page import BESIDE, NOT_RUN, ROOT, UNTIL_THE_END, Block, blocks_of, matches
from tests.docs.shells import Shells

TUTORIAL = ROOT / "docs/tutorials/first-run.md"
PAGES = (
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/tutorials/*.md")),
    *sorted(ROOT.glob("docs/how-to/*.md")),
)

A_READERS_PAUSE_S = 2.0  # by night it is a minute: test_five_minutes.py

SERVICE = "<!-- given: the service of the first run -->"
SERVICE_AND_DETECTOR = "<!-- given: the service and the detector of the first run -->"


def given(page: Path) -> list[Block]:
    """Return the tutorial's blocks that a page builds on."""
    text = page.read_text(encoding="utf-8")
    words = ["<<'EOF'", " serve "] if SERVICE in text else []
    words = ["<<'EOF'", " serve ", " simulate "] if SERVICE_AND_DETECTOR in text else words
    return [block for block in blocks_of(TUTORIAL) if any(word in block.code for word in words)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    blocks = [*given(page), *blocks_of(page)]
    pause_s = A_READERS_PAUSE_S if page.name == "README.md" else 0.0
    with Shells(tmp_path) as shells:
        for block in blocks:
            time.sleep(pause_s)
            shells.run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for block in blocks_of(page):
        assert block.kind in ("", NOT_RUN, UNTIL_THE_END, BESIDE), f"{page}:{block.line}: {block.how}"
        if block.kind == NOT_RUN:
            assert block.how.partition(": ")[2], f"{page}:{block.line}: not run, but why?"


def test_no_example_waits_in_redis_for_as_long_as_redis_py_waits_for_a_socket() -> None:
    """Its own 5 s since 8.1, which it takes for a fault and asks again."""
    pages = [*ROOT.glob("docs/*/*.md"), *ROOT.glob("examples/*"), ROOT / "README.md"]
    waits = [
        (page.name, int(ms))
        for page in pages
        for ms in re.findall(r"xread\(.*?\bblock=(\d+)", page.read_text(encoding="utf-8"))
    ]
    assert ("watch-in-redis.md", 2000) in waits
    assert [wait for wait in waits if not 0 < wait[1] <= 2000] == []


def test_a_page_builds_on_blocks_that_are_there() -> None:
    kinds = [block.kind for page in PAGES for block in given(page)]
    assert kinds.count(UNTIL_THE_END) > kinds.count("") > 0


def test_an_output_that_differs_is_noticed() -> None:
    assert matches("images 10 of 10 written\n", "images … written")
    assert not matches("images 9 of 10 written\nand more", "images 10 of 10 written\n")


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    with Shells(tmp_path) as shells:
        with pytest.raises(AssertionError, match="exit code 3"):
            shells.run(Block("bash", "exit 3", 1))
        with pytest.raises(AssertionError, match="something else"):
            shells.run(Block("python", "print('yes')", 2, prints="no\n"))
