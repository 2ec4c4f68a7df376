"""Text that comes from clients, made fit for a log line."""

from __future__ import annotations


def printable(text: str, length: int = 64) -> str:
    """Return the beginning of a text, on one line, with ? for what cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
