"""A documentation page as a list of code blocks, with what its comments say of how each is run.

A ``bash`` or ``python`` block is run as it stands, unless the comment before it says otherwise::

    <!-- not run: why -->
    <!-- runs until the page ends -->            a service, a detector
    <!-- runs until the page ends, ready when it prints READY -->
    <!-- runs beside the next block -->          it ends by itself

A ``text`` block after a block is what that block prints; … in it stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]

RUN = ("bash", "python")
SHOWN = ("text", "json", "mermaid", "diff", "")
UNTIL_THE_END, BESIDE, NOT_RUN = "runs until the page ends", "runs beside the next block", "not run"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>[^>\n]+) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One piece of code on a page."""

    language: str
    code: str
    line: int  # where it begins
    how: str = ""  # the comment before it
    prints: str | None = None  # the text block after it

    @property
    def kind(self) -> str:
        """What `how` begins with: NOT_RUN, UNTIL_THE_END, BESIDE, or "" for a plain run."""
        return re.split("[,:]", self.how)[0]

    @property
    def ready_word(self) -> str:
        """What a block that goes on prints when it is ready; "" when nobody waits for it."""
        return self.how.partition("ready when it prints ")[2]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks that are code, with the text that each of them prints."""
    text, blocks = page.read_text(encoding="utf-8"), list[Block]()
    for match in _BLOCK.finditer(text):
        language, code = match["language"], match["code"]
        if language in RUN:
            line = text.count("\n", 0, match.start("code")) + 1
            blocks.append(Block(language, code, line, match["how"] or ""))
        elif language == "text" and blocks:
            blocks[-1] = replace(blocks[-1], prints=code)
        elif language not in SHOWN:
            raise AssertionError(f"{page}: a block of {language!r}; write bash or python, so that it is run")
    return blocks


def matches(output: str, expected: str) -> bool:
    """Tell whether an output is what a page says; … stands for anything."""
    pattern = re.escape(expected.strip()).replace(re.escape("…"), ".*?")
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None
