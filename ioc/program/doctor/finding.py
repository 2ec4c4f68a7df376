"""What a look at the machine returns: a verdict, what was found, and the command that cures it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "limits", "problem"]
"""good: as it should be; limits: it works, but slower or not as safely; problem: it will not work."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    text : what was found, with its numbers
    cure : a command, or what to change; "" where nothing needs to be
    """

    subject: str
    verdict: Verdict
    text: str
    cure: str = ""


Findings = Iterator[Finding]
