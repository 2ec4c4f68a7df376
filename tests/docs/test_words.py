"""Words that a newcomer cannot know are explained: each page links the first one to ``words.md``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.page import ROOT
from tests.docs.test_links import CODE, anchors

WORDS = ROOT / "docs/explanations/words.md"
TERMS = {
    "face": r"\bfaces?\b",
    "epoch": r"\bepochs?\b",
    "armed-again": r"\b(?:armed again|re-?armed)\b",
    "bunch-id": r"\bbunch ids?\b",
    "put-completion": r"\bput (?:completion|to complete)\b",
}
PAGES = [
    ROOT / "README.md",
    *(
        page
        for room in ("tutorials", "how-to", "explanations")
        for page in sorted(ROOT.glob(f"docs/{room}/*.md"))
        if page != WORDS
    ),
]


def first_uses(page: Path) -> dict[str, str]:
    """Return where each term on a page comes first, with 80 characters behind it."""
    text = re.sub(r"^#.*$", "", CODE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    uses = {}
    for anchor, term in TERMS.items():
        if use := re.search(term, text, re.IGNORECASE):
            uses[anchor] = text[max(0, use.start() - 1) : use.end() + 80]
    return uses


def test_every_term_has_a_heading_and_is_met_somewhere() -> None:
    assert TERMS.keys() <= anchors(WORDS)
    assert {anchor for page in PAGES for anchor in first_uses(page)} == TERMS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_first_use_of_a_term_on_a_page_links_to_its_explanation(page: Path) -> None:
    for anchor, use in first_uses(page).items():
        assert re.match(rf"\[[^\]]+\]\([^)]*words\.md#{anchor}\)", use), f"{anchor}: {use!r}"
