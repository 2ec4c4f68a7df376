"""``std-daq-ioc demo`` shows the main job, checks it, and ends by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from daq_core.config import DaqConfig
from daq_core.kernels.progress import COMPILING
from daq_core.simulating.simulator import Simulator
from ioc.program import demo
from ioc.program.demo import DemoFailed, check_file, check_first_image


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demo printed, and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "output"
    done = subprocess.run(
        [sys.executable, "-m", "ioc", "demo", "--images", "10", "--output", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_it_takes_a_run_by_each_face_and_says_that_all_is_well(shown: tuple[str, Path]) -> None:
    said, folder = shown
    for face in ("REST", "Channel Access", "Command line"):
        assert f"   {face:<14} run_by_" in said
    assert "daq:writer_status" in said
    assert "All is well" in said
    assert str(folder) in said
    assert len(sorted(folder.glob("run_by_*.h5"))) == 3


def test_a_wrong_pixel_in_a_file_is_noticed(shown: tuple[str, Path]) -> None:
    _, folder = shown
    file = folder / "run_by_rest.h5"
    simulator = Simulator(DaqConfig.parse(json.loads((folder / "jungfrau.json").read_text())))
    check_file(file, simulator, 10)
    with h5py.File(file, "r+") as opened:
        opened["entry/data/data"][7, 500, 1000] ^= 1
    with pytest.raises(DemoFailed, match=r"image 7, id \d+, differs from what was sent"):
        check_file(file, simulator, 10)


@pytest.mark.parametrize(
    ("n_lines", "then", "line"), [(35, "print('READY', flush=True)", "READY"), (1, "time.sleep(1000)", "")]
)
def test_a_service_is_waited_for_until_it_says_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_lines: int, then: str, line: str
) -> None:
    monkeypatch.setattr(demo, "SILENT_S", 3.0)
    says = f"print(f'{COMPILING}: {{n}} of 40 kernels', file=sys.stderr, flush=True); time.sleep(0.1)"
    program = f"import sys, time\nfor n in range({n_lines}): {says}\n{then}"
    log_file = tmp_path / "service.log"
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=log, text=True
        ) as service,
    ):
        assert demo.first_line(service, log_file) == line


def test_a_first_image_that_comes_too_late_is_noticed() -> None:
    check_first_image(4.9)
    with pytest.raises(DemoFailed, match=r"first image took 5\.1 s"):
        check_first_image(5.1)
