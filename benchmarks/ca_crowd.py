"""A crowd of Channel Access clients that cost next to nothing: ``reference/ca_crowd.c`` on the C library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

from benchmarks.line_process import LineProcess
from benchmarks.receivers import compiled
from ioc.program.ports import channel_access_environment


class Crowd(LineProcess):
    """A process of clients that monitor the same PVs: ``with Crowd(port, names, 20) as crowd: …``.

    When it is entered, each client has had a value of every PV, `first_values_s` after the first search.
    SkippedError without a C compiler.
    """

    def __init__(self, ca_port: int, names: Sequence[str], n_clients: int) -> None:
        self._command = [_program(), str(n_clients)]
        self._env = os.environ | channel_access_environment(ca_port)
        self._names = names

    def __enter__(self) -> Self:
        self._start(self._command, self._env, quiet=True)
        try:
            self.first_values_s = float(self._ask("\n".join(self._names) + "\n"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def n_updates(self) -> int:
        """Return how many updates all clients together have had."""
        return int(self._ask(""))


def _program() -> str:
    from epicscorelibs.path import include_path, lib_path

    folders = (include_path, f"{include_path}/os/Linux", f"{include_path}/compiler/gcc")
    libraries = (f"-L{lib_path}", f"-Wl,-rpath,{lib_path}", "-lca", "-lCom")
    return compiled("ca_crowd", flags=(*(f"-I{folder}" for folder in folders), *libraries))
