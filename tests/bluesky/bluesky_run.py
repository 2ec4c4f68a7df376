"""Runs of Bluesky with stock areaDetector clients, in processes of their own (libca lives as long as one).

Run as ``python -m tests.bluesky.ophyd_count`` or ``tests.bluesky.ophyd_async_count``: each takes the
:class:`CountTask` as JSON, counts, and prints a document per line: ``["event", {…}]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daq_core.config import DaqConfig
from daq_core.simulating.simulator import Simulator
from tests.processes.service import Service

ROOT = Path(__file__).parents[2]
WITHIN_S = 60
Document = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class CountTask:
    """What to count: ``n_points`` points of ``n_images`` images each, which the detector sends when asked."""

    prefix: str
    folder: str
    config_file: str
    n_points: int
    n_images: int
    streams: bool = False  # the detector sends all the time, whoever asks

    def trigger(self) -> Callable[[], None]:
        """Return what makes the simulated detector send the images of a point; ids go on from 1.

        It does nothing where the detector sends by itself.
        """
        if self.streams:
            return lambda: None
        simulator = Simulator(DaqConfig.load(self.config_file), host="127.0.0.1")
        next_id = 1

        def send() -> None:
            nonlocal next_id
            simulator.send(self.n_images, rate_hz=50, first_id=next_id)
            next_id += self.n_images

        return send


def count(
    module: str,
    service: Service,
    folder: Path,
    *,
    n_points: int,
    n_images: int = 1,
    streams: bool = False,
) -> list[Document]:
    """Have a client count against a service, and return the documents of the run."""
    task = CountTask(service.prefix, str(folder), str(service.config_file), n_points, n_images, streams)
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(asdict(task))],
        cwd=ROOT,
        env=os.environ | service.ca_environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\nthe service's log:\n{service.log()}"
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def engine() -> Any:
    """Return a run engine; its event loop is the one that ophyd-async's devices live in."""
    from bluesky import RunEngine

    return RunEngine({})


def run(running: Any, plan: Any) -> None:
    """Run a plan in this process and print its documents."""
    documents: list[Document] = []
    running.subscribe(lambda name, document: documents.append((name, document)))
    running(plan)
    for document in documents:
        print(json.dumps(document, default=str))


def task_of(arguments: list[str]) -> CountTask:
    return CountTask(**json.loads(arguments[1]))
