"""How long the service takes from its command line to READY, against ``import numba``."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure
from benchmarks.service import Service

MOST_ROUNDS = 5
IMPORT = [sys.executable, "-c", "import numba"]


def to_ready(effort: Effort) -> list[Figure]:
    """The whole service with Channel Access and REST; the kernels are in numba's disk cache."""
    _start()  # fills the kernel cache
    pairs = []
    for _ in range(min(effort.rounds, MOST_ROUNDS)):
        ours = _start()
        begin = wall()
        subprocess.run(IMPORT, check=True)
        pairs.append((ours, wall() - begin))
    return [Figure.ratio("command line to READY", "import numba", pairs, goal="≤ 4", unit="s")]


def _start() -> float:
    with Service(detectors.jungfrau()) as service:
        return service.seconds_to_ready


BENCHMARKS = (to_ready,)
