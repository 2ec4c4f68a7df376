"""A process that answers each line it is sent with a line: for what needs a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]


class CallFailedError(AssertionError):
    """The process has ended, or says what was wrong; to a test, a failure as any other."""


class LineProcess:
    """Started by :meth:`_start`, asked by :meth:`_ask`; killed when it is left, whatever it does."""

    def _start(self, command: Sequence[str], env: Mapping[str, str], *, quiet: bool = False) -> None:
        """Start it; `quiet` without its stderr, where libca complains of servers that are gone."""
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
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
        """Return the answer to a line; CallFailedError when the process has ended."""
        self._send(line)
        return self._answer()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            command = self._process.args
            raise CallFailedError(f"{command} ended with {self._process.wait()}")
        return answer

    # With `answer_calls` at the other end:

    def _call(self, what: str, **arguments: Any) -> Any:
        """Call a function of the process and return what it returns; CallFailedError has what it raised."""
        self._send_call(what, **arguments)
        return self._returned()

    def _send_call(self, what: str, **arguments: Any) -> None:
        self._send(json.dumps({"what": what, **arguments}))

    def _returned(self) -> Any:
        returned = json.loads(self._answer())
        if isinstance(returned, dict) and "error" in returned:
            raise CallFailedError(returned["error"])
        return returned


def answer_calls(calls: Mapping[str, Callable[..., Any]], answers: TextIO = sys.stdout) -> None:
    """In the process: carry out the calls that come as lines of stdin, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = calls[request.pop("what")](**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)
