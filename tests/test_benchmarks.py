"""Each benchmark runs once, in its smallest size: it finds figures and loses nothing; speed is not judged."""

from __future__ import annotations

import math

import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.figure import SMALLEST, Benchmark, Figure, SkippedError, percentile
from benchmarks.report import render

ALL = [benchmark for subject in SUBJECTS.values() for benchmark in subject.BENCHMARKS]


@pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.__name__)
def test_a_benchmark_gives_finite_figures_of_lossless_data(measure: Benchmark) -> None:
    """A benchmark raises LostError when a packet or a pixel is missing."""
    try:
        figures = measure(SMALLEST)
    except SkippedError as reason:
        pytest.skip(str(reason))
    assert figures
    for figure in figures:
        assert all(math.isfinite(value) and value > 0 for value in figure.values)


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
