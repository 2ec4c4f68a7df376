"""Cuts the text of an access file into words; the rules are those of ``asLib_lex.l`` in EPICS Base."""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|\#[^\n]*)
      | "(?P<quoted>(?:[^"\n\\]|\\.)*)"
      | (?P<word>[a-zA-Z0-9_\-+:.\[\]<>;]+)
      | (?P<mark>[(){},])""",
    re.VERBOSE,
)
NUMBER = re.compile(r"[-+]?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9]+")
KEYWORD = re.compile(r"UAG|HAG|ASG|RULE|CALC|INP[A-U]")


class Token(NamedTuple):
    """A word, a keyword, a number, a quoted text (as it is between its quotes), a mark, or the end."""

    kind: str  # word, keyword, number, quoted, mark, end
    text: str
    line: int

    def __str__(self) -> str:
        return "the end of the file" if self.kind == "end" else ascii(self.text[:40])


class Mistake(Exception):
    """What is wrong at a token, and what to do."""

    def __init__(self, token: Token, what: str) -> None:
        super().__init__(what)
        self.line = token.line


def tokens(text: str) -> list[Token]:
    """Cut a text into tokens; the last one is the end.

    Raises
    ------
    Mistake
        Something is no token: a character, or a quoted text without an end.
    """
    found, at, line = list[Token](), 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise Mistake(Token("mark", text[at], line), _no_token(text[at]))
        kind = str(match.lastgroup)
        if kind == "word":
            kind = _kind_of_word(match[0])
        if kind != "blank":
            found.append(Token(kind, match["quoted"] if kind == "quoted" else match[0], line))
        line += match[0].count("\n")
        at = match.end()
    return [*found, Token("end", "", line)]


def _kind_of_word(word: str) -> str:
    if NUMBER.fullmatch(word):
        return "number"
    return "keyword" if KEYWORD.fullmatch(word) else "word"


def _no_token(character: str) -> str:
    if character == '"':
        return "a quoted text has no end on its line; put the closing quote"
    if character == "$":
        return "'$': macros are not expanded here; write their values"
    return f"{character!a} can only stand between quotes"
