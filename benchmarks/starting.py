"""How long the service takes from its command line to READY, against ``import numba``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure

MOST_ROUNDS = 5
SERVICE = [sys.executable, "-c", "import sys; from ioc.cli import main; sys.exit(main())", "serve"]
IMPORT = [sys.executable, "-c", "import numba"]


def to_ready(effort: Effort) -> list[Figure]:
    """The whole service with Channel Access and REST; the kernels are in numba's disk cache."""
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder:
        _serve(folder)  # fills the kernel cache
        pairs = []
        for _ in range(min(effort.rounds, MOST_ROUNDS)):
            ours = _serve(folder)
            start = wall()
            subprocess.run(IMPORT, check=True)
            pairs.append((ours, wall() - start))
    return [Figure.ratio("command line to READY", "import numba", pairs, goal="≤ 4", unit="s")]


def _serve(folder: str) -> float:
    """Start the service, wait for its READY line, end it; return the seconds to READY."""
    config = Path(folder) / "detector.json"
    config.write_text(detectors.jungfrau().as_json())
    options = ["--config", str(config), "--prefix", f"BENCH{os.getpid()}:", "--no-redis"]
    options += ["--rest-port", str(_free_tcp_port()), "--ca-port", str(_free_tcp_port())]
    with open(Path(folder) / "service.log", "w+") as messages:
        start = wall()
        with subprocess.Popen(
            SERVICE + options, stdout=subprocess.PIPE, stderr=messages, text=True
        ) as service:
            assert service.stdout is not None
            line = next((line for line in service.stdout if line.startswith("READY")), "")
            seconds = wall() - start
            service.send_signal(signal.SIGTERM)
            service.communicate()
        if not line or service.returncode:
            messages.seek(0)
            raise RuntimeError(f"the service did not start and end in order: {messages.read()[-2000:]}")
    return seconds


def _free_tcp_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


BENCHMARKS = (to_ready,)
