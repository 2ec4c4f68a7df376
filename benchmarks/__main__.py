"""``python -m benchmarks [--quick] [--only TEXT] [--output FILE]``: measure everything, write the table."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

from benchmarks import (
    answering,
    bytecode,
    channel_access,
    compressed,
    copying,
    end_to_end,
    limits,
    receiving,
    scaling,
    short_runs,
    starting,
    writing,
)
from benchmarks.cpu import use_two_cores, wall
from benchmarks.figure import FULL, QUICK, Benchmark, Effort, Figure, LostError, SkippedError
from benchmarks.report import one_line, render, summary

SUBJECTS: dict[str, ModuleType] = {
    "Receiving: CPU time per packet": receiving,
    "Highest lossless rates": limits,
    "Runs: CPU time": end_to_end,
    "Filling images: bytes per second of CPU time": copying,
    "Writing: CPU time per image": writing,
    "Compressing: CPU time and rate": compressed,
    "Short runs": short_runs,
    "Answers while the machine is busy, and starts by each face": answering,
    "Channel Access with many clients": channel_access,
    "Python in the data path": bytecode,
    "Starting": starting,
    "How cost grows": scaling,
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)
    n_cores = use_two_cores()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): expect a wide spread.", file=sys.stderr)
    begin = wall()
    sections, skipped = _measure(QUICK if options.quick else FULL, options.only)
    if not options.only:
        print(summary(sections))
    print(f"measured in {wall() - begin:.0f} s")
    if options.output:
        command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        options.output.write_text(render(sections, skipped, command, load, n_cores))
        print(f"written to {options.output}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds; writes no file by itself"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only benchmarks whose name contains this")
    parser.add_argument(
        "--output", type=Path, help=f"default: {RESULTS.name} beside this, if all is measured"
    )
    options = parser.parse_args()
    if options.output is None and not options.quick and not options.only:
        options.output = RESULTS
    return options


def _measure(effort: Effort, only: str) -> tuple[dict[str, list[Figure]], list[str]]:
    sections: dict[str, list[Figure]] = {}
    skipped: list[str] = []
    for title, subject in SUBJECTS.items():
        chosen: list[Benchmark] = [b for b in subject.BENCHMARKS if only in b.__name__]
        if not chosen:
            continue
        print(title, flush=True)
        begin = wall()
        figures: list[Figure] = []
        for benchmark in chosen:
            try:
                figures += (new := benchmark(effort))
            except (SkippedError, LostError) as reason:
                skipped.append(f"{benchmark.__name__}: {reason}")
                print(f"  not measured: {skipped[-1]}", flush=True)
                continue
            for figure in new:
                print(one_line(figure), flush=True)
        print(f"  in {wall() - begin:.0f} s", flush=True)
        if figures:
            sections[title] = figures
    return sections, skipped


if __name__ == "__main__":
    sys.exit(main())
