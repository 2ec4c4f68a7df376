"""The page about the file says the truth: its paths, its types, and its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from daq_core.files.image_file import ImageFile
from tests.processes.image_writer import RUN, STOP_TIME, append

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/file.md").read_text(encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run7.h5"
    file = ImageFile.create(str(path), shape=(4, 6), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 3, shape=(4, 6))
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    return path


def test_the_page_lists_every_dataset_and_no_other(path: Path) -> None:
    listed = dict(re.findall(r"^\| `(/entry/[^`]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    found = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found["/entry/" + name] = item

    with h5py.File(path) as file:
        file["entry"].visititems(visit)
        assert listed.keys() == found.keys()
        for name, dataset in found.items():
            kind = "text" if h5py.check_string_dtype(dataset.dtype) else dataset.dtype.name
            assert kind in listed[name], name


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_for_a_whole_file_runs(path: Path) -> None:
    assert run(examples()[0], path.parent) == "3 images, 1 of them good; (4, 6) uint16\n"


def test_the_example_for_a_growing_file_runs(tmp_path: Path) -> None:
    file = ImageFile.create(
        str(tmp_path / "run7.h5"), shape=(4, 6), dtype=np.dtype("u2"), detector_name="eiger", run=RUN
    )
    append(file, 2, shape=(4, 6))
    said = run(examples()[1], tmp_path)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    assert said == f"2 images so far, ids [{2**40} {2**40 + 1}]\n"
    assert run(examples()[1], tmp_path) == said  # and it goes on working when the file is closed


def test_the_command_for_repair_says_that_a_good_file_needs_none(path: Path) -> None:
    assert re.search(r"^std-daq-ioc repair run7\.h5$", PAGE, re.MULTILINE)
    repair = [sys.executable, "-m", "ioc", "repair", str(path)]
    process = subprocess.run(repair, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (0, f"{path} needs no repair.\n")
    path.write_text("not HDF5")
    assert subprocess.run(repair, cwd=ROOT, capture_output=True, timeout=60).returncode == 1


def run(code: str, folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=30
    )
    return process.stdout
