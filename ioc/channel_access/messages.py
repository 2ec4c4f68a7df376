"""Channel Access messages between bytes and objects: requests as they come, values as they go.

caproto knows every message's form, and its parser is used. Its record of what a circuit
has been through is not: it keeps each name that was not found, each refused monitor and
each put for as long as the client stays, and looks at all channels at every echo and error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import caproto as ca
from caproto._commands import Commands, read_from_bytestream  # not exported; the only parser of the bytes

from ioc.records.dbr import Wire

MAX_REQUEST_BYTES = 256 * 1024  # the largest PV takes 64 kB; a header may announce 4 GB
MAX_SHORT = 0xFFFF  # what a header cannot say in 16 bits, it says in 32 more
HEADER = struct.Struct(">HHHHII")
LONG_HEADER = struct.Struct(">HHHHIIII")
OK: int = ca.CAStatus.ECA_NORMAL.value.code_with_severity
NO_READ_ACCESS: int = ca.CAStatus.ECA_NORDACCESS.value.code_with_severity

KNOWN = frozenset(Commands[ca.CLIENT])
READ_NOTIFY, READ, EVENT = 15, 3, 1  # messages that carry a value


class Garbage(Exception):
    """What a client sent is not Channel Access."""


class Requests:
    """The requests in a stream of bytes."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Return the requests that are complete now.

        Raises
        ------
        Garbage
            What came is no request, or announces one that is too long.
        """
        self._received += data
        while True:
            try:
                self._received, command, n_missing = read_from_bytestream(self._received, ca.CLIENT)
            except Exception as broken:  # nearly any error, of the struct module and of caproto
                raise Garbage(f"{type(broken).__name__}: {broken}") from None
            if command is ca.NEED_DATA:
                break
            yield command
        self._judge_beginning(n_missing)

    def _judge_beginning(self, n_missing: int) -> None:
        """Refuse the beginning of what will never be a request, so as not to wait for the rest."""
        if n_missing > MAX_REQUEST_BYTES:
            raise Garbage(f"a request of {n_missing} bytes")
        command = int.from_bytes(self._received[:2], "big")
        if len(self._received) >= HEADER.size and command not in KNOWN:
            raise Garbage(f"a request of the unknown kind {command}")


def packed(response: Any) -> bytes:
    """Return one of caproto's responses, or one that is bytes already, as bytes."""
    return response if isinstance(response, bytes) else b"".join((response.header, *response.buffers))


def value_message(command: int, data_type: int, value: Wire, p1: int, p2: int) -> bytes:
    """Return a message with a value; its two parameters depend on the command."""
    payload = value.payload
    if len(payload) < MAX_SHORT and value.n < MAX_SHORT:
        return HEADER.pack(command, len(payload), data_type, value.n, p1, p2) + payload
    return LONG_HEADER.pack(command, MAX_SHORT, data_type, 0, p1, p2, len(payload), value.n) + payload
