"""The examples do what they say, against a real service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.service import Service

ROOT = Path(__file__).parents[2]


def test_ophyd_async_counts_and_finds_the_images_that_were_sent(service: Service) -> None:
    command = [
        *(sys.executable, str(ROOT / "examples/ophyd_async_detector.py")),
        *("--config", str(service.config_file), "--prefix", service.prefix, "--folder", str(service.output)),
    ]
    done = subprocess.run(
        [*command, "--points", "4"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | service.ca_environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\nthe service's log:\n{service.log()}"
    simulator = service.simulator()
    expected = [
        f"point {n}: 1024 x 1024 uint16, sum {simulator.image(n).sum(dtype='uint64')}" for n in range(1, 5)
    ]
    assert done.stdout.splitlines() == expected
    assert (service.output / "detector.h5").exists()
