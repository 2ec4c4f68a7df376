"""What a benchmark returns: a figure with its spread, and how much effort to put into it."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NOTHING = "= 0"
"""A goal that only zero reaches."""
GOAL = re.compile(r"(p(?P<percent>\d+) )?(?P<sign>[≤≥=]) (?P<limit>[\d.]+)( \S+)?$")


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
QUICK = Effort(rounds=2, seconds=0.1, packets_per_second=60_000, n_steps=1, n_runs=10)
SMALLEST = Effort(rounds=1, seconds=0.05, packets_per_second=10_000, n_steps=1, n_runs=2)


@dataclass(frozen=True)
class Figure:
    """One line of the results.

    name      : what was measured
    reference : what it is divided by, "" when it is an absolute figure
    values    : of each round: the ratio, or the absolute figure in `unit`
    goal      : what to reach, e.g. "≤ 1.10", "p99 ≤ 10 ms", NOTHING; "" for none
    note      : the absolute numbers behind it, and what they were measured with
    """

    name: str
    reference: str
    values: tuple[float, ...]
    goal: str = ""
    note: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        least = 0.0 if self.goal == NOTHING else math.ulp(0.0)
        if not self.values or not all(math.isfinite(v) and v >= least for v in self.values):
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

    @classmethod
    def of_times(cls, name: str, milliseconds: Sequence[float], *, goal: str, note: str = "") -> Figure:
        """Make a figure of how long something took each time; the percentiles are in the note."""
        p50, p99 = (percentile(milliseconds, percent) for percent in (50, 99))
        told = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(milliseconds)}"
        return cls(name, "", tuple(milliseconds), goal, f"{told}; {note}".strip("; "), "ms")

    @property
    def judged(self) -> float:
        """What the goal is about: a percentile where it names one, else the median."""
        found = GOAL.match(self.goal)
        if found and found["percent"]:
            return percentile(self.values, float(found["percent"]))
        return self.median

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        found = GOAL.match(self.goal)
        if found is None:
            return None
        value, limit = self.judged, float(found["limit"])
        return value <= limit if found["sign"] in "≤=" else value >= limit


Benchmark = Callable[[Effort], list[Figure]]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
