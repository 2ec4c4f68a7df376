"""EPICS Base's own access security (asLib, in the wheel of epicscorelibs), as a judge of ours.

It has global state and prints what it thinks, so it lives in a process of its own::

    with AsLib() as c: c.rights(text, [("CMD", 0, "alice", "127.0.0.1")])

Run as a script this module is that process: a request per line of stdin, an answer
per line of stdout, both JSON. Source of the structures: ``asLib.h``.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_void_p
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Asked = tuple[str, int, str, str]
"""Group, level, user, address."""


class AsLib:
    """The process; hosts of a HAG are compared by address, as with ``var asCheckClientIP 1``."""

    def __enter__(self) -> AsLib:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.channel_access.c_access_security"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def rights(self, text: str, asked: Sequence[Asked]) -> list[tuple[bool, bool, bool]] | None:
        """Return read, write, trap for each client that is asked for; None: the file is refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"text": text, "asked": asked}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"asLib ended with {self._process.wait()}"
        answer = json.loads(line)
        return None if answer is None else [tuple(map(bool, rights)) for rights in answer]


class Client(Structure):
    """``struct asgClient``; its first two are an ELLNODE."""

    _fields_ = [
        *((name, c_void_p) for name in ("next", "previous", "member", "user", "host", "private", "callback")),
        *((name, c_int) for name in ("level", "access", "trap")),
    ]


def main() -> None:
    """Be the process."""
    from epicscorelibs import path

    lib = ctypes.CDLL(path.get_lib("Com"))
    c_int.in_dll(lib, "asCheckClientIP").value = 1
    lib.asInitFile.restype = c_long
    lib.asAddMember.argtypes = (POINTER(c_void_p), c_char_p)  # which keep what they are given
    lib.asAddClient.argtypes = (POINTER(POINTER(Client)), c_void_p, c_int, c_char_p, c_char_p)

    def rights(group: str, level: int, user: str, address: str) -> tuple[bool, bool, bool]:
        member, client = c_void_p(), POINTER(Client)()
        texts = [ctypes.create_string_buffer(text.encode()) for text in (group, user, address)]
        assert lib.asAddMember(byref(member), texts[0]) == 0
        assert lib.asAddClient(byref(client), member, level, texts[1], texts[2]) == 0
        found = client.contents.access >= 1, client.contents.access >= 2, bool(client.contents.trap)
        assert lib.asRemoveClient(byref(client)) == 0
        assert lib.asRemoveMember(byref(member)) == 0
        return found

    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        with tempfile.NamedTemporaryFile(suffix=".acf") as file:
            Path(file.name).write_text(request["text"], encoding="utf-8")
            if lib.asInitFile(file.name.encode(), None) == 0:
                answer = [rights(*asked) for asked in request["asked"]]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
