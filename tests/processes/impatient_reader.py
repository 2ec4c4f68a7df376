"""A reader that opens and locks each file when it appears, like one that polls for new files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def impatient_reader(paths: Sequence[Path]) -> Iterator[None]:
    """Have a process hold each of these files, in turn, from its first moment on; its end is waited for."""
    reader = subprocess.Popen(
        [sys.executable, "-m", "tests.processes.impatient_reader", *map(str, paths)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert reader.stdout is not None
    with reader:
        try:
            assert reader.stdout.readline() == b"looking\n"
            yield
            assert reader.wait(60) == 0
        finally:
            reader.kill()


def main() -> None:
    """Wait for one file after the other, and keep a shared lock of each until the next is there."""
    print("looking", flush=True)
    held = -1
    for path in sys.argv[1:]:
        descriptor = -1
        while descriptor < 0:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if held >= 0:
            os.close(held)
        held = descriptor


if __name__ == "__main__":
    main()
