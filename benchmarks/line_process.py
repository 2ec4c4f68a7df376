"""A process that answers each line it is sent with a line: for what needs a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


class LineProcess:
    """Started by :meth:`_start`, asked by :meth:`_ask`; killed when it is left, whatever it does."""

    def _start(self, command: Sequence[str], env: Mapping[str, str], *, quiet: bool = False) -> None:
        """Start it; `quiet` without its stderr, where libca complains of servers that are gone."""
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _ask(self, line: str) -> str:
        """Return the answer to a line; RuntimeError when the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            command = self._process.args
            raise RuntimeError(f"{command} ended with {self._process.wait()}")
        return answer
