"""The files of a run as others see them: how many images a reader finds, whose they are, what is in them."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import h5py

from tests.system.evidence import Owned


def visible_images(path: Path) -> int:
    """Return how many images readers see who open the file now, or the parts of one that is not made yet."""
    files = [path] if path.exists() else parts_of(path)
    if not files:
        raise FileNotFoundError(path)
    n_images = 0
    for one in files:
        with h5py.File(one, swmr=True) as file:
            n_images += len(file["entry/data/data"])
    return n_images


def parts_of(path: Path) -> list[Path]:
    """Return the files of several writers of one run."""
    return sorted(path.parent.glob(f"{path.stem}_*{path.suffix}"))


def owned(*folders: Path) -> list[Owned]:
    """Return every file below some folders: whose it is, and what is in it."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                found.append(Owned(str(path), about.st_uid, hashlib.sha1(path.read_bytes()).hexdigest()))
    return found
