"""Each benchmark runs once, in its smallest size: it finds figures and loses nothing; speed is not judged."""

from __future__ import annotations

import math

import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.figure import NOTHING, SMALLEST, Benchmark, Figure, SkippedError, percentile
from benchmarks.report import render
from benchmarks.targets import TARGETS
from tests.machine.judges import required

FOUND: dict[str, Figure] = {}
"""What the benchmarks gave so far, by name."""
MEASURED: set[str] = set()
SKIPPED: set[str] = set()
ALL = [benchmark for subject in SUBJECTS.values() for benchmark in subject.BENCHMARKS]


@pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.__name__)
def test_a_benchmark_gives_finite_figures_of_lossless_data(measure: Benchmark) -> None:
    """A benchmark raises LostError when a packet or a pixel is missing."""
    try:
        figures = measure(SMALLEST)
    except SkippedError as reason:
        SKIPPED.add(measure.__name__)
        if "hdf5" in required():
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))
    MEASURED.add(measure.__name__)
    assert figures
    FOUND.update({figure.name: figure for figure in figures})
    for figure in figures:
        assert all(math.isfinite(value) and value >= 0 for value in figure.values)


def test_every_target_is_shown_by_figures_with_goals() -> None:
    if {benchmark.__name__ for benchmark in ALL} > MEASURED | SKIPPED:
        pytest.skip("not all benchmarks were run before")
    for target in TARGETS:
        for name in target.figures:
            assert name in FOUND or SKIPPED, f"{target.row}: no benchmark gives {name!r}"
            assert name not in FOUND or FOUND[name].reached is not None, f"{name} has no goal"


def test_a_goal_is_about_the_median_or_about_the_percentile_it_names() -> None:
    times = [1.0] * 98 + [30.0, 40.0]
    assert Figure.of_times("read", times, goal="p50 ≤ 10 ms").reached is True
    assert Figure.of_times("read", times, goal="p99 ≤ 10 ms").reached is False
    assert Figure("a", "b", (0.7, 0.9), goal="≥ 0.80").reached is True
    assert Figure("a", "b", (0.7,), goal="").reached is None


def test_only_nothing_reaches_the_goal_of_nothing() -> None:
    assert Figure("bytecode", "", (0.0,), goal=NOTHING).reached is True
    assert Figure("bytecode", "", (0.001,), goal=NOTHING).reached is False


def test_a_target_is_missed_with_one_of_its_figures_and_the_results_have_a_place_for_the_reason() -> None:
    names = TARGETS[1].figures
    figures = [
        Figure(name, "C", (value,), goal="≤ 1.45") for name, value in zip(names, (1.4, 1.6), strict=True)
    ]
    text = render({"Receiving": figures}, [], "python -m benchmarks", 0.1, 2)
    assert f"| {TARGETS[1].row} | ≤ 1.45 | ≤ 1.33 | 1.40, 1.60 | not reached |" in text
    assert f"- {names[1]}: " in text
    assert f"- {names[0]}: " not in text
    assert f"| {TARGETS[0].row} | – | ≤ 1.02 | – | not measured |" in text


def test_a_figure_without_a_measurement_is_refused() -> None:
    for values in ((), (0.0,), (math.nan,), (math.inf,), (-1.0,)):
        with pytest.raises(ValueError, match="not a measurement"):
            Figure("a", "b", values)


def test_a_ratio_is_ours_over_the_reference_round_by_round() -> None:
    figure = Figure.ratio("copy", "memcpy", [(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)], unit="GB/s")
    assert figure.values == (0.5, 1.5, 1.0)
    assert figure.median == 1.0
    assert figure.note == "2 / 2 GB/s"


def test_the_results_name_what_was_measured_and_what_was_not() -> None:
    figure = Figure.ratio("copy", "memcpy", [(1.0, 2.0), (3.0, 2.0)], goal="≥ 0.80")
    text = render({"Kernels": [figure]}, ["receiving: no C compiler"], "python -m benchmarks", 0.1, 2)
    assert "| copy | memcpy | **1.00** | 0.50 … 1.50 | ≥ 0.80 | reached |" in text
    assert "- receiving: no C compiler" in text
    assert "`python -m benchmarks`" in text


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 99) == 4.0
    assert percentile([7.0], 99) == 7.0
