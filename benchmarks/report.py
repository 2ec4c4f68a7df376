"""``RESULTS.md``: the figures as a table, with machine, commit, date and command."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numba

from benchmarks.figure import Figure

ROOT = Path(__file__).parent.parent

HEAD = """\
# Results of the benchmarks

Written by `python -m benchmarks`; how to read it: `docs/explanations/performance.md`.
A ratio is ours divided by the reference, both measured in turn in the same run;
beside the median stand the smallest and the largest of the rounds. Milliseconds
depend on the machine and are goals, not limits.

"""


def render(
    sections: dict[str, list[Figure]], skipped: list[str], command: str, load: float, n_cores: int
) -> str:
    """Return the Markdown text of all figures, by subject."""
    lines = [HEAD, "| | |\n|---|---|\n"]
    lines += [f"| {name} | {value} |\n" for name, value in _circumstances(command, load, n_cores).items()]
    for title, figures in sections.items():
        lines.append(f"\n## {title}\n\n")
        lines.append("| measured | reference | result | min … max | goal | absolute, ours / reference |\n")
        lines.append("|---|---|---|---|---|---|\n")
        lines += [_row(figure) for figure in figures]
    if skipped:
        lines.append("\n## Not measured\n\n")
        lines += [f"- {reason}\n" for reason in skipped]
    return "".join(lines)


def _row(figure: Figure) -> str:
    spread = f"{min(figure.values):.2f} … {max(figure.values):.2f}"
    result = f"**{figure.median:.2f}** {figure.unit}".strip()
    return (
        f"| {figure.name} | {figure.reference or '–'} | {result} | {spread} "
        f"| {figure.goal or '–'} | {figure.note} |\n"
    )


def one_line(figure: Figure) -> str:
    """Return a figure for the terminal."""
    against = f" of {figure.reference}" if figure.reference else ""
    result = f"{figure.median:.2f}{' ' + figure.unit if figure.unit else ''}"
    goal = f", goal {figure.goal}" if figure.goal else ""
    return f"  {figure.name}: {result}{against} ({min(figure.values):.2f} … {max(figure.values):.2f}{goal})"


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
