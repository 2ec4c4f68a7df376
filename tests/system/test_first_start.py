"""The first start on a machine compiles the kernels, and says so while it does."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daq_core.fork_server import COMPILING


def start_forks(cache: Path) -> str:
    """Start a fork server with a kernel cache of its own, until it is ready; return what it said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "daq_core.fork_server", str(theirs.fileno()), "INFO"],
            pass_fds=(theirs.fileno(),),
            env=os.environ | {"XDG_CACHE_HOME": str(cache), "NUMBA_CACHE_DIR": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        assert ours.recv(1) == b"!"
    _, said = process.communicate(timeout=30)
    return said


@pytest.mark.timeout(300)
def test_a_first_start_tells_how_far_it_is_and_the_second_has_nothing_to_tell(tmp_path: Path) -> None:
    told = re.findall(rf"{COMPILING}: (\d+) of (\d+) kernels", start_forks(tmp_path))
    done = [int(n) for n, _ in told]
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] == int(told[-1][1]) > 1
    assert COMPILING not in start_forks(tmp_path)
