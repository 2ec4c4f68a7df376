"""A fork server that goes on from one test to the next: to load one takes longer than most runs of a test.

The next Daq of this process finds it loaded, as it finds its own after its first receiver. It is taken only
where a new one would be the same: the same environment, folder, limits and stderr. That a Daq starts and
ends one of its own is shown by all tests of the service, and by those whose surroundings differ.
"""

from __future__ import annotations

import atexit
import itertools
import os
import resource
import socket
import subprocess
from dataclasses import dataclass

from daq_core.processes.forks import ForkServer

MARK = "STD_DAQ_TEST_MARK"
"""Environment variable by which the processes of a Daq are found, orphans too."""

_OF_EACH_TEST = (MARK, "PYTEST_CURRENT_TEST")
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_MEMLOCK)
_marks = itertools.count()


def surroundings() -> object:
    """Return what a process that is started now would inherit."""
    umask = os.umask(0o077)
    os.umask(umask)
    return (
        {name: value for name, value in os.environ.items() if name not in _OF_EACH_TEST},
        os.getcwd(),
        os.geteuid(),
        umask,
        os.sched_getaffinity(0),
        [resource.getrlimit(limit) for limit in _LIMITS],
        os.fstat(2).st_ino,
    )


@dataclass(frozen=True)
class _Kept:
    mark: str
    process: subprocess.Popen[bytes]
    socket: socket.socket
    surroundings: object

    def is_of_use(self) -> bool:
        return self.process.poll() is None and self.surroundings == surroundings()

    def drop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


_kept: list[_Kept] = []  # one, or none


class KeptForks(ForkServer):
    """The server that is kept, if there is one that is of use; its end keeps it for the next.

    Attribute `mark` is that of its processes; the environment has it when it starts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_loaded = False
        self.mark = new_mark()
        if _kept:
            kept = _kept.pop()
            if kept.is_of_use():
                self.mark, self._process, self._socket = kept.mark, kept.process, kept.socket
                self._is_loaded = True
            else:
                kept.drop()
        self._surroundings = surroundings()

    async def start(self) -> None:
        if not self._is_loaded:
            await super().start()
        self._is_loaded = False  # the next start is that of another server

    async def end(self) -> None:
        process, channel = self._process, self._socket
        busy = self._replacing is not None or self._hearing is not None
        if _kept or busy or process is None or channel is None or process.poll() is not None:
            await super().end()
            return
        _kept.append(_Kept(self.mark, process, channel, self._surroundings))
        self._process = self._socket = None


def new_mark() -> str:
    return f"{os.getpid()}-{next(_marks)}"


def kept_pids() -> set[int]:
    return {kept.process.pid for kept in _kept}


@atexit.register
def drop() -> None:
    """End what is kept."""
    while _kept:
        _kept.pop().drop()
