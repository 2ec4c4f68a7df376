"""What a benchmark returns: a figure with its spread, and how much effort to put into it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class SkippedError(Exception):
    """This figure cannot be measured here; the text says what is missing."""


class LostError(Exception):
    """Packets were lost, or pixels are wrong: whatever was measured does not count."""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    """Each figure and its reference take turns this often."""
    seconds: float
    """Of traffic in one measurement; twice as long where the highest rate is searched."""
    packets_per_second: float
    """Where the rate is not what is measured; halved until nothing is lost."""
    n_steps: int
    """Of the search for the highest lossless rate."""
    n_runs: int
    """Runs whose latencies are measured."""


FULL = Effort(rounds=7, seconds=1.0, packets_per_second=120_000, n_steps=5, n_runs=100)
QUICK = Effort(rounds=3, seconds=0.25, packets_per_second=120_000, n_steps=3, n_runs=20)
SMALLEST = Effort(rounds=1, seconds=0.05, packets_per_second=10_000, n_steps=1, n_runs=2)


@dataclass(frozen=True)
class Figure:
    """One line of the results.

    name      : what was measured
    reference : what it is divided by, "" when it is an absolute figure
    values    : of each round: the ratio, or the absolute figure in `unit`
    goal      : what to reach, e.g. "≤ 1.10"; "" for none
    note      : the absolute numbers behind it, and what they were measured with
    """

    name: str
    reference: str
    values: tuple[float, ...]
    goal: str = ""
    note: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(v) and v > 0 for v in self.values):
            raise ValueError(f"{self.name}: not a measurement: {self.values}")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @classmethod
    def ratio(
        cls,
        name: str,
        reference: str,
        pairs: Sequence[tuple[float, float]],
        *,
        goal: str = "",
        unit: str = "",
        note: str = "",
    ) -> Figure:
        """Make a figure of (ours, reference) of each round; `unit` is that of both, for the note."""
        ours = statistics.median(a for a, _ in pairs)
        theirs = statistics.median(b for _, b in pairs)
        absolute = f"{ours:.3g} / {theirs:.3g} {unit}".strip()
        return cls(name, reference, tuple(a / b for a, b in pairs), goal, f"{absolute}; {note}".strip("; "))


Benchmark = Callable[[Effort], list[Figure]]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
