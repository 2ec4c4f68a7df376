"""EPICS Base's own access security (asLib, in the wheel of epicscorelibs), as a judge of ours.

It has global state and prints what it thinks, so it lives in a process of its own::

    with AsLib() as c: c.rights(text, [("CMD", 0, "alice", "127.0.0.1")])

Run as a script this module is that process: a request per line of stdin, an answer
per line of stdout, both JSON. Source of the structures: ``asLib.h``.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_void_p
from pathlib import Path

from benchmarks.line_process import LineProcess, answer_calls

Asked = tuple[str, int, str, str]
"""Group, level, user, address."""


class AsLib(LineProcess):
    """The process; hosts of a HAG are compared by address, as with ``var asCheckClientIP 1``."""

    def __enter__(self) -> AsLib:
        self._start([sys.executable, "-m", "tests.channel_access.c_access_security"], os.environ, quiet=True)
        return self

    def rights(self, text: str, asked: Sequence[Asked]) -> list[tuple[bool, bool, bool]] | None:
        """Return read, write, trap for each client that is asked for; None: the file is refused."""
        answer = self._call("rights", text=text, asked=asked)
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

    def rights_of(group: str, level: int, user: str, address: str) -> tuple[bool, bool, bool]:
        member, client = c_void_p(), POINTER(Client)()
        texts = [ctypes.create_string_buffer(text.encode()) for text in (group, user, address)]
        assert lib.asAddMember(byref(member), texts[0]) == 0
        assert lib.asAddClient(byref(client), member, level, texts[1], texts[2]) == 0
        found = client.contents.access >= 1, client.contents.access >= 2, bool(client.contents.trap)
        assert lib.asRemoveClient(byref(client)) == 0
        assert lib.asRemoveMember(byref(member)) == 0
        return found

    def rights(text: str, asked: Sequence[Asked]) -> list[tuple[bool, bool, bool]] | None:
        with tempfile.NamedTemporaryFile(suffix=".acf") as file:
            Path(file.name).write_text(text, encoding="utf-8")
            if lib.asInitFile(file.name.encode(), None) != 0:
                return None
            return [rights_of(*client) for client in asked]

    answer_calls({"rights": rights})


if __name__ == "__main__":
    main()
