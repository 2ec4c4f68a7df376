"""The examples do what they say, against a real service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes.service import Service

ROOT = Path(__file__).parents[2]


ALONE = """
import runpy, sys
for name in ("daq_core", "ioc", "rest_bridge", *{absent}):
    sys.modules[name] = None  # as in an environment without it
sys.argv = {arguments}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def count(service: Service, *absent: str) -> list[str]:
    """Run the example for four points with none of this project's packages, nor `absent` ones; its lines."""
    arguments = [
        *(str(ROOT / "examples/ophyd_async_detector.py"), "--points", "4"),
        *("--config", str(service.config_file), "--prefix", service.prefix, "--folder", str(service.output)),
        *("--simulator", str(Path(sys.executable).parent / "std-daq-ioc")),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(absent=absent, arguments=arguments)],
        env=os.environ | service.ca_environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\nthe service's log:\n{service.log()}"
    return done.stdout.splitlines()


def test_ophyd_async_counts_and_finds_the_images_that_were_sent(service: Service) -> None:
    simulator = service.simulator()
    assert count(service) == [
        f"point {n}: 1024 x 1024 uint16, sum {simulator.image(n).sum(dtype='uint64')}" for n in range(1, 5)
    ]
    assert (service.output / "detector.h5").exists()


def test_ophyd_async_counts_where_there_is_no_h5py_and_says_where_the_images_are(service: Service) -> None:
    path = service.output / "detector.h5"
    path.unlink(missing_ok=True)
    assert count(service, "h5py") == [f"point {n}: {path}, /entry/data/data[{n - 1}]" for n in range(1, 5)]
