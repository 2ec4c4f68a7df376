"""``RESULTS.md``: targets and figures as tables, with machine, commit, date and command."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numba

from benchmarks.figure import Figure
from benchmarks.targets import Standing, reason_for, stand

ROOT = Path(__file__).parent.parent

HEAD = """\
# Results of the benchmarks

Written by `make bench`; how to read it: `docs/explanations/performance.md`.
A ratio is ours divided by the reference, both measured in turn in the same run;
beside the median stand the smallest and the largest of the rounds. Milliseconds
depend on the machine and are goals, not limits.

"""
COLUMNS = ("measured", "reference", "result", "min … max", "goal", "", "absolute, ours / reference")
TARGET_COLUMNS = ("target", "reach", "then", "measured", "")


def render(
    sections: dict[str, list[Figure]], skipped: list[str], command: str, load: float, n_cores: int
) -> str:
    """Return the Markdown text: targets, reasons of the missed ones, then all figures by subject."""
    lines = [HEAD, "| | |\n|---|---|\n"]
    lines += [f"| {name} | {value} |\n" for name, value in _circumstances(command, load, n_cores).items()]
    standings = stand({figure.name: figure for figures in sections.values() for figure in figures})
    lines += ["\n## Targets\n\n", *_table(TARGET_COLUMNS, map(_target_row, standings))]
    missed = [figure for figures in sections.values() for figure in figures if figure.reached is False]
    if missed:
        lines.append("\n## Why some are not reached\n\n")
        lines += [f"- {figure.name}: {reason_for(figure)}\n" for figure in missed]
    for title, figures in sections.items():
        lines += [f"\n## {title}\n\n", *_table(COLUMNS, map(_row, figures))]
    if skipped:
        lines.append("\n## Not measured\n\n")
        lines += [f"- {reason}\n" for reason in skipped]
    return "".join(lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    divider = ["---"] * len(columns)
    return [f"| {' | '.join(row)} |\n" for row in (columns, divider, *rows)]


def _row(figure: Figure) -> Sequence[str]:
    spread = f"{min(figure.values):.2f} … {max(figure.values):.2f}"
    result = f"**{figure.median:.2f}** {figure.unit}".strip()
    return (
        figure.name,
        figure.reference or "–",
        result,
        spread,
        figure.goal or "–",
        verdict(figure),
        figure.note,
    )


def _target_row(standing: Standing) -> Sequence[str]:
    found = [f"{figure.judged:.2f} {figure.unit}".strip() for figure in standing.found]
    goals = dict.fromkeys(figure.goal for figure in standing.found)
    reach = ", ".join(goals) or "–"
    return standing.target.row, reach, standing.target.then or "–", ", ".join(found) or "–", standing.verdict


def verdict(figure: Figure) -> str:
    """Say whether a figure reaches its goal; "" where it has none."""
    return {True: "reached", False: "not reached", None: ""}[figure.reached]


def one_line(figure: Figure) -> str:
    """Return a figure for the terminal."""
    against = f" of {figure.reference}" if figure.reference else ""
    result = f"{figure.median:.2f}{' ' + figure.unit if figure.unit else ''}"
    goal = f", goal {figure.goal}: {verdict(figure)}" if figure.goal else ""
    return f"  {figure.name}: {result}{against} ({min(figure.values):.2f} … {max(figure.values):.2f}{goal})"


def summary(sections: dict[str, list[Figure]]) -> str:
    """Return the table of targets for the terminal."""
    standings = stand({figure.name: figure for figures in sections.values() for figure in figures})
    rows = [_target_row(standing) for standing in standings]
    lines = [f"  {row:<70} {measured:<24} {reach:<14} {said}" for row, reach, _, measured, said in rows]
    n_reached = sum(standing.verdict == "reached" for standing in standings)
    return "\n".join(["Targets", *lines, f"{n_reached} of {len(standings)} targets reached"])


def _circumstances(command: str, load: float, n_cores: int) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "command": f"`{command}`",
        "processor": f"{_processor()}, {n_cores} of {os.cpu_count()} cores used",
        "load before": f"{load:.2f}",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"numba {numba.__version__}, h5py {h5py.__version__} with HDF5 {h5py.version.hdf5_version}",
        "C compiler": _first_line(["cc", "--version"]) or "none",
    }


def _commit() -> str:
    """Return the commit that was measured, and whether files have changed since."""
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = _first_line(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return (commit or "unknown") + (", with uncommitted changes" if changed else "")


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown"
        )


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
