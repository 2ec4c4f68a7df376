"""Channel Access by hand: messages as bytes, for what no client library would send, and for many at once.

Source: EPICS Base, caProto.h: a header of 16 bytes (command, payload size, type, count, two
parameters), big-endian; size 0xFFFF and count 0 announce 8 more bytes with the true ones.
"""

from __future__ import annotations

import itertools
import random
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

HEADER = struct.Struct(">HHHHII")
EXTENDED = struct.Struct(">HHHHIIII")
VERSION_13 = 13

(VERSION, EVENT_ADD, EVENT_CANCEL, READ, WRITE, SEARCH) = (0, 1, 2, 3, 4, 6)
(ERROR, CLEAR, READ_NOTIFY, CREATE, WRITE_NOTIFY, ECHO, CREATE_FAILED) = (11, 12, 15, 18, 19, 23, 26)
(CLIENT_NAME, HOST_NAME, ACCESS_RIGHTS) = (20, 21, 22)
STRING, INT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
GREETING = HEADER.pack(VERSION, 0, 0, VERSION_13, 0, 0)


class Answer(NamedTuple):
    """A message from the server."""

    command: int
    data_type: int
    count: int
    p1: int
    p2: int
    payload: bytes


def message(command: int, payload: bytes = b"", kind: int = 0, n: int = 0, p1: int = 0, p2: int = 0) -> bytes:
    """Return a message, its payload padded to 8 bytes; the long form of the header where it needs one."""
    payload += bytes(-len(payload) % 8)
    if len(payload) < 0x4000 and n < 0xFFFF:
        return HEADER.pack(command, len(payload), kind, n, p1, p2) + payload
    return EXTENDED.pack(command, 0xFFFF, kind, 0, p1, p2, len(payload), n) + payload


def search(name: str, cid: int = 1) -> bytes:
    return message(SEARCH, name.encode() + b"\0", kind=5, n=VERSION_13, p1=cid, p2=cid)


class Connection:
    """One circuit: ``with Connection(port) as wire: (sid,) = wire.channels(["X:DAQ:NImages"])``."""

    def __init__(
        self, port: int, timeout_s: float = 30.0, *, to: str = "127.0.0.1", source: str = "127.0.0.1"
    ) -> None:
        self.socket = socket.create_connection((to, port), timeout=timeout_s, source_address=(source, 0))
        self._received = self.socket.makefile("rb")
        self._ids = itertools.count(1)
        self._cids: dict[int, int] = {}  # by server id

    def __enter__(self) -> Connection:
        self.send(GREETING)
        return self

    def __exit__(self, *exc: object) -> None:
        self._received.close()
        self.socket.close()

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(messages))

    def answer(self) -> Answer | None:
        """Return the next message, or None when the server has closed the circuit."""
        try:
            header = self._received.read(HEADER.size)
            if len(header) < HEADER.size:
                return None
            command, size, kind, n, p1, p2 = HEADER.unpack(header)
            if size == 0xFFFF:
                size, n = struct.unpack(">II", self._received.read(8))
            return Answer(command, kind, n, p1, p2, self._received.read(size))
        except ConnectionError:
            return None

    def answers(self, wanted: int, n: int = 1) -> list[Answer]:
        """Return the next n answers of one kind; the others are dropped."""
        found: list[Answer] = []
        while len(found) < n:
            answer = self.answer()
            assert answer is not None, f"the server closed the circuit after {len(found)} of {n} answers"
            if answer.command == wanted:
                found.append(answer)
        return found

    def channels(self, names: Sequence[str]) -> list[int]:
        """Create channels, all at once; return their server ids."""
        return [answer.p2 for answer in self.created(names)]

    def created(self, names: Sequence[str]) -> list[Answer]:
        """Create channels, all at once; return the server's words: type, element count, server id (p2)."""
        cids = [next(self._ids) for _ in names]
        self.send(
            *(
                message(CREATE, name.encode() + b"\0", p1=cid, p2=VERSION_13)
                for cid, name in zip(cids, names, strict=True)
            )
        )
        answers = {answer.p1: answer for answer in self.answers(CREATE, len(names))}
        self._cids |= {answer.p2: cid for cid, answer in answers.items()}
        return [answers[cid] for cid in cids]

    def clear(self, sids: Sequence[int]) -> None:
        """Clear channels, all at once."""
        self.send(*(message(CLEAR, p1=sid, p2=self._cids.pop(sid)) for sid in sids))
        self.answers(CLEAR, len(sids))

    def values(self, sids: Iterable[int], kind: int = STRING) -> list[bytes]:
        """Read channels, all at once; return their first elements packed as a type."""
        asked = list(sids)
        self.send(*(message(READ_NOTIFY, kind=kind, n=1, p1=sid, p2=n) for n, sid in enumerate(asked)))
        found = {answer.p2: answer.payload for answer in self.answers(READ_NOTIFY, len(asked))}
        return [found[n] for n in range(len(asked))]

    def is_closed(self) -> bool:
        """Tell whether the server closes the circuit; what it sends until then is thrown away."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


def any_message(rng: random.Random, sids: Sequence[int], names: Sequence[str]) -> bytes:
    """Return a message of any sort: legal, with a wrong number in it, cut short, or no message at all."""
    command = rng.choice((*range(30), rng.randrange(2**16)))
    name = rng.choice((rng.choice(names).encode() + b"\0", b"", b"\xff" * 40, rng.randbytes(24)))
    payload = rng.choice((name, bytes(8), rng.randbytes(rng.randrange(200))))
    kind = rng.choice((*range(40), 65535))
    n = rng.choice((0, 1, 2, 40, 1024, 65535))
    p1 = rng.choice((*sids[:8], 0, 1, 2**32 - 1))
    p2 = rng.choice((0, 1, 7, VERSION_13, 2**31, 2**32 - 1))
    whole = message(command, payload, kind, n, p1, p2)
    match rng.randrange(5):
        case 0:
            return whole[: rng.randrange(len(whole))]
        case 1:
            at = rng.randrange(len(whole))
            return whole[:at] + rng.randbytes(1) + whole[at + 1 :]
        case 2:
            return rng.randbytes(rng.randrange(1, 300))
        case 3:
            size = rng.choice((2**32 - 8, 2**31, 2**24, 2**20, 2**16))
            return EXTENDED.pack(command, 0xFFFF, kind, 0, p1, p2, size, rng.choice((0, 1, 2**31)))
        case _:
            return whole
