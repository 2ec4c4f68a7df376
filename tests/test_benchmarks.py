"""Each benchmark runs once, in its smallest size: it finds figures and loses nothing; speed is not judged.

By day one or more of each subject, by night all.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest

from benchmarks import channel_access, compressed, receiving, scaling, short_runs
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
LONG = (
    receiving.into_gapped_and_flipped_images,
    receiving.with_loss_and_reordering,
    receiving.of_four_ports,
    receiving.of_two_threads,
    compressed.socket_to_compressed_file,
    short_runs.step_scan,
    channel_access.all_pvs,
    scaling.of_modules_and_image_sizes,
    scaling.small_and_large_images,
)
"""Left to the night; by day the others of their subjects stand for them."""


def by_night(measure: Benchmark) -> Any:
    return pytest.param(measure, marks=pytest.mark.night) if measure in LONG else measure


def measured(measure: Benchmark) -> list[Figure]:
    """Measure once; SkippedError says what is missing here."""
    MEASURED.add(measure.__name__)
    try:
        figures = measure(SMALLEST)
    except SkippedError:
        SKIPPED.add(measure.__name__)
        raise
    FOUND.update({figure.name: figure for figure in figures})
    return figures


@pytest.mark.parametrize(
    "measure", [by_night(measure) for measure in ALL], ids=[measure.__name__ for measure in ALL]
)
def test_a_benchmark_gives_finite_figures_of_lossless_data(measure: Benchmark) -> None:
    """A benchmark raises LostError when a packet or a pixel is missing."""
    try:
        figures = measured(measure)
    except SkippedError as reason:
        if "hdf5" in required():
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))
    assert figures
    for figure in figures:
        assert all(math.isfinite(value) and value >= 0 for value in figure.values)


def test_every_subject_is_measured_by_day() -> None:
    for title, subject in SUBJECTS.items():
        assert set(subject.BENCHMARKS) - set(LONG), title


def test_the_figures_of_targets_that_were_found_have_goals() -> None:
    shown = {name for target in TARGETS for name in target.figures} & set(FOUND)
    if not shown:
        pytest.skip("no benchmark was run before")
    for name in shown:
        assert FOUND[name].reached is not None, f"{name} has no goal"


@pytest.mark.night
@pytest.mark.timeout(600)
def test_every_target_is_shown_by_a_figure() -> None:
    for measure in ALL:
        if measure.__name__ not in MEASURED:
            with contextlib.suppress(SkippedError):
                measured(measure)
    for target in TARGETS:
        for name in target.figures:
            assert name in FOUND or SKIPPED, f"{target.row}: no benchmark gives {name!r}"


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
