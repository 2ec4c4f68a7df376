"""The paths in a run's file are spelled once, and each leads to something."""

from __future__ import annotations

import ast
from pathlib import Path

import h5py
import numpy as np

import daq_core
from daq_core.files import places
from daq_core.files.layout import RunMetadata, create_layout

PACKAGES = [Path(daq_core.__file__).parents[1] / name for name in ("daq_core", "ioc", "rest_bridge")]
PATHS = {name: path for name, path in vars(places).items() if name.isupper()}


def test_everything_that_has_a_place_is_in_a_new_file(tmp_path: Path) -> None:
    run = RunMetadata("7", 3, 1.0, "{}", "std-daq-ioc 0.1.0", "jungfrau", 16, writer=0, n_writers=2)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        create_layout(file, (4, 6), np.dtype(np.uint16), "JF", run)
        assert len(PATHS) > 10
        assert [path for path in PATHS.values() if path not in file] == []


def spelled_in(source: Path) -> list[str]:
    """Return the texts of a program, docstrings left out, that are or hold a path in the file."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in statements]
    return [text.value for text in texts if isinstance(text.value, str) and f"{places.ENTRY}/" in text.value]


def test_no_other_program_text_spells_a_path_in_the_file() -> None:
    sources = [source for package in PACKAGES for source in package.rglob("*.py")]
    spelled = {source.name: found for source in sources if (found := spelled_in(source))}
    assert spelled.keys() == {"places.py"}, spelled
    assert set(spelled["places.py"]) == set(PATHS.values()) - {places.ENTRY}
