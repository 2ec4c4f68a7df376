"""A short turn of each fuzz target, so that they stay in working order; long ones are run by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("target", "n_inputs"), [("packets", 300), ("recordings", 2000), ("json", 5000)])
def test_a_fuzz_target_finds_nothing(target: str, n_inputs: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/fuzz/parsers.py"), target, f"-runs={n_inputs}", "-seed=7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {n_inputs}" in done.stderr
