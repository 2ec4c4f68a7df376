"""The page on adding a detector is a diff; applied to a copy of the project, it is all there is to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ioc.pvs.daq import PVS
from tests.docs.page import ROOT

PAGE = ROOT / "docs/how-to/add-a-detector.md"
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPIED = ("daq_core", "ioc", "rest_bridge", "tests", "docs", "db")

LINE = {
    "detector_name": "G1",
    "detector_type": "gotthard2",
    "bit_depth": 16,
    "image_pixel_height": 1,
    "image_pixel_width": 1280,
    "n_modules": 1,
    "start_udp_port": 30900,
    "writer_user_id": -1,
    "module_positions": {"0": [0, 0, 1279, 0]},
}
ASK = """
import json, sys
from daq_core.config import DaqConfig
from ioc.pvs.daq import PVS
from rest_bridge.models import config_changes_schema

layout = DaqConfig.parse(json.loads(sys.argv[1])).layout
print(json.dumps({
    "image": layout.image_shape,
    "datagram": layout.datagram_bytes,
    "choices": {row.name: row.choices for row in PVS if row.name.startswith("CfgDetectorType")},
    "schema": config_changes_schema()["properties"]["detector_type"]["enum"],
}))
"""


def diff() -> str:
    (found,) = DIFF.findall(PAGE.read_text(encoding="utf-8"))
    return str(found)


def run(folder: Path, *command: str) -> str:
    """Run a program of the copy; its kernels stay Python, for compiling them would take minutes."""
    environment = os.environ | {"PYTHONPATH": str(folder), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(folder, "-c", ASK, json.dumps(LINE)))
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the diff in it, and what is generated made anew."""
    folder = tmp_path_factory.mktemp("copy")
    left_out = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run(["git", "apply", "-"], cwd=folder, input=diff(), text=True, check=True)
    run(folder, "docs/make_reference.py")
    run(folder, "-m", "ioc", "db", "--output", "db", "--reference", "docs/reference/pvs.md")
    return folder


def test_a_detector_is_one_file_its_line_in_formats_and_its_judge() -> None:
    changed = re.findall(r"^\+\+\+ b/(.+)$", diff(), re.MULTILINE)
    assert changed == [
        "daq_core/detectors/__init__.py",
        "daq_core/detectors/gotthard2.py",
        "tests/oracle/frames.py",
    ]


@pytest.mark.timeout(240)
def test_the_new_detector_can_be_chosen_by_every_face_and_the_others_keep_their_numbers(copy: Path) -> None:
    found = ask(copy)
    assert (found["image"], found["datagram"]) == ([1, 1280], 48 + 2560)
    assert found["schema"][-1] == "gotthard2"
    before = {row.name: [*row.choices] for row in PVS if row.name.startswith("CfgDetectorType")}
    assert found["choices"] == {name: [*choices, "gotthard2"] for name, choices in before.items()}


@pytest.mark.timeout(240)
def test_the_generated_pages_and_the_database_know_the_new_detector(copy: Path) -> None:
    page = (copy / "docs/reference/config.md").read_text(encoding="utf-8")
    assert "| `gotthard2` | 16 | 1280 × 1 | UDP: `start_udp_port` + number of the module |" in page
    assert "`gotthard2`" in (copy / "docs/reference/pvs.md").read_text(encoding="utf-8")
    assert '"gotthard2")' in (copy / "db/daq.template").read_text(encoding="utf-8")


@pytest.mark.timeout(240)
def test_the_tests_of_the_copy_try_the_new_detector_and_pass(copy: Path) -> None:
    pytest_ = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    told = run(copy, *pytest_, "tests/property/test_round_trip.py", "-k", "gotthard2 or every_packet_format")
    assert re.search(r"\b5 passed", told), told
    lists = ("tests/unit/test_ioc_pvs.py", "tests/unit/test_database.py", "tests/docs/test_reference.py")
    run(copy, *pytest_, *lists)


@pytest.mark.timeout(240)
def test_without_the_diff_there_is_no_such_detector() -> None:
    with pytest.raises(AssertionError, match="'gotthard2' is not supported"):
        ask(ROOT)
