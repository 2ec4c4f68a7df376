"""``python -m tests.torture.soak --minutes 60``: long at half of what the machine can, with starts and stops.

First many short files, one after the other; then runs of seconds, some of them stopped,
from a detector that never pauses. Each file is opened and its rows are looked at.
Meanwhile memory, descriptors, threads and shared memory of the service's processes
are noted; what was at the end must be what was at the beginning.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import MARK, kill_all, marked_processes
from tests.processes.service import JUNGFRAU_2, Service
from tests.torture.detector import JUNGFRAU
from tests.torture.session import redis_of

SAMPLE_S = 5.0
SHORT_RATE_HZ = 500.0
PROBE_IMAGES = 150
PROBE_HZ = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
MAY_GROW = {"private memory / MB": 4.0, "shared memory / MB": 0.5, "descriptors": 3, "threads": 0}
"""What a measure may be higher at the end: the play of the allocator, and connections that come and go."""
MAY_GROW_PART = 0.03
STREAMS_MB = 32.0
"""What Redis may grow by: its streams fill up to their 10,000 entries, and stay so."""
NAMES = ("control", "daq-forks", "daq-receiver", "redis")

Samples = dict[tuple[str, str], list[float]]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.torture.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0, help="of long runs; default 60")
    options.add_argument("--short-files", type=int, default=10_000, help="before them; default 10000")
    options.add_argument(
        "--rate-hz", type=float, default=0.0, help="images a second; default: half of what is found possible"
    )
    options.add_argument("--seed", type=int, default=1, help="of the lengths of the runs")
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="std-daq-soak-"))
    os.environ[MARK] = f"soak-{os.getpid()}"
    try:
        grown = []
        if chosen.short_files:
            with Soak(folder / "short", JUNGFRAU | {"writer_user_id": -1}) as soak:
                soak.short_files(chosen.short_files)
                grown += soak.verdict("short files")
        if chosen.minutes:
            with Soak(folder / "long", JUNGFRAU_2 | {"ram_buffer_gb": 0.5}) as soak:
                rate = chosen.rate_hz or soak.fastest_hz() / 2
                soak.long_runs(60 * chosen.minutes, rate, random.Random(chosen.seed))
                grown += soak.verdict("long runs")
    finally:
        kill_all(os.environ[MARK])
        shutil.rmtree(folder)
    print("everything is flat" if not grown else "GROWN: " + "; ".join(grown))
    return 1 if grown else 0


class Soak:
    """One service, and what its processes used while it worked."""

    def __init__(self, folder: Path, detector: Mapping[str, Any]) -> None:
        folder.mkdir()
        self.service = Service(folder, detector, {})
        self.samples: Samples = defaultdict(list)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample)

    def __enter__(self) -> Soak:
        self.service.start()
        self._sampler.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._sampler.join()
        self.service.end()

    # ------------------------------------------------------------ the work

    def short_files(self, n_files: int) -> None:
        """Take runs of one image, one after the other, from a detector that never pauses."""
        began = time.monotonic()
        with self._streaming(SHORT_RATE_HZ):
            for i in range(n_files):
                path = self.service.output / f"{i:06}.h5"
                self._take(path, 1)
                self._look_at(path, 1, "Completed.")
                if (i + 1) % 500 == 0:
                    took = time.monotonic() - began
                    print(f"{i + 1} files in {took:.0f} s, {took / (i + 1) * 1e3:.0f} ms each", flush=True)
        shutil.rmtree(self.service.output)
        self.service.output.mkdir()

    def fastest_hz(self) -> float:
        """Return the highest of some rates at which nothing is lost."""
        best = 0.0
        simulator = Simulator(self.service.config, host=LOOPBACK)
        for rate in PROBE_HZ:
            path = self.service.output / f"probe{rate}.h5"
            self._begin(path, PROBE_IMAGES)
            report = simulator.send(PROBE_IMAGES, rate)
            time.sleep(1.0)
            self.service.post("/writer/stop")
            with h5py.File(path) as file:
                lost = (
                    PROBE_IMAGES
                    - len(file["entry/data/data"])
                    + int(file["entry/data/missing_packets"][:].sum())
                )
            path.unlink()
            if lost or report.rate_hz < 0.95 * rate:
                break
            best = report.rate_hz
        print(f"without loss up to {best:.0f} images a second", flush=True)
        assert best, f"images are lost at {PROBE_HZ[0]} Hz already"
        return best

    def long_runs(self, seconds: float, rate_hz: float, dice: random.Random) -> None:
        """Take runs of up to ten seconds for a time; a third of them is stopped early."""
        end, n_runs, n_images, n_told = time.monotonic() + seconds, 0, 0, time.monotonic()
        n_incomplete = 0
        print(f"{seconds / 60:.0f} minutes at {rate_hz:.0f} images a second", flush=True)
        with self._streaming(rate_hz):
            while time.monotonic() < end:
                path = self.service.output / f"run{n_runs}.h5"
                wanted = max(1, int(rate_hz * dice.uniform(0.1, 10)))
                stop_after_s = dice.uniform(0, wanted / rate_hz) if dice.random() < 1 / 3 else None
                message = self._take(path, wanted, stop_after_s)
                n, missing = self._look_at(path, wanted, message)
                path.unlink()
                n_runs, n_images, n_incomplete = n_runs + 1, n_images + n, n_incomplete + (missing > 0)
                if time.monotonic() - n_told > 60:
                    n_told = time.monotonic()
                    print(f"{n_runs} runs, {n_images} images, {n_incomplete} runs with losses", flush=True)
        print(f"{n_runs} runs, {n_images} images, {n_incomplete} runs with losses", flush=True)

    def _begin(self, path: Path, n_images: int) -> None:
        answer = self.service.post("/writer/write_async", {"output_file": str(path), "n_images": n_images})
        assert answer["status"] == "ok", answer

    def _take(self, path: Path, n_images: int, stop_after_s: float | None = None) -> str:
        self._begin(path, n_images)
        if stop_after_s is not None:
            time.sleep(stop_after_s)
            self.service.post("/writer/stop")
        return str(self.service.wait_for("READY", seconds=60)["acquisition"]["message"])

    def _look_at(self, path: Path, n_wanted: int, message: str) -> tuple[int, int]:
        """Return images and missing packets of a file; its rows must be in order, and as many as it says."""
        with h5py.File(path) as file:
            assert file["entry/run/message"].asstr()[()] == message
            ids = file["entry/data/image_id"][:].astype(np.int64)
            n_dropped = int(file["entry/run/counters/dropped_images"][()])
            missing = int(file["entry/data/missing_packets"][:].sum())
            assert len(ids) == len(file["entry/data/data"])
            assert (len(ids) == n_wanted) == (message == "Completed."), f"{len(ids)} of {n_wanted}: {message}"
            assert n_dropped or missing or (np.diff(ids) == 1).all(), f"ids {ids}"
            return len(ids), missing + n_dropped

    def _streaming(self, rate_hz: float) -> _Streaming:
        return _Streaming(Simulator(self.service.config, host=LOOPBACK), rate_hz)

    # ------------------------------------------------------------ what is used

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            pids = {name: pid for pid, name in marked_processes(os.environ[MARK]).items()}
            pids["control"] = self.service.pid
            pids["redis"] = redis_of(self.service.pid) or 0
            for name in NAMES:
                with suppress(OSError, KeyError):
                    for measure, value in usage(pids[name]).items():
                        self.samples[name, measure].append(value)

    def verdict(self, what: str) -> list[str]:
        """Print what was used, at the beginning and at the end; return what has grown."""
        grown = []
        print(f"\n{what}: {len(self.samples['control', 'threads'])} samples, one in {SAMPLE_S:.0f} s")
        print(f"{'process':<14} {'measure':<22} {'first quarter':>14} {'last quarter':>14} {'highest':>9}")
        for (name, measure), values in self.samples.items():
            quarter = max(1, len(values) // 4)
            # Of what comes and goes with each run the highest counts, of memory the middle.
            judge = statistics.median if "memory" in measure else max
            first, last = judge(values[:quarter]), judge(values[-quarter:])
            print(f"{name:<14} {measure:<22} {first:>14.1f} {last:>14.1f} {max(values):>9.1f}")
            may_grow = (
                STREAMS_MB if (name, measure) == ("redis", "private memory / MB") else MAY_GROW[measure]
            )
            if last > first + may_grow + MAY_GROW_PART * first * ("memory" in measure):
                grown.append(f"{name}: {measure} from {first:.1f} to {last:.1f} during {what}")
        print(flush=True)
        return grown


class _Streaming:
    """A detector that sends in a thread as long as the block lasts."""

    def __init__(self, simulator: Simulator, rate_hz: float) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=simulator.send, args=(0, rate_hz), kwargs={"stop": self._stop})

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def usage(pid: int) -> dict[str, float]:
    """Return what a process uses (proc(5): status, fd); shared memory is what it has mapped of it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "private memory / MB": int(status["RssAnon"].split()[0]) / 1024,
        "shared memory / MB": int(status["RssShmem"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }


if __name__ == "__main__":
    sys.exit(main())
