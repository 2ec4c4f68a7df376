"""What processes say to each other: dataclasses, each as a line of JSON over a socket.

A line is ``{"name of the class": {its fields}}``. The classes are in the ``task`` of the package whose
process it is, where a :class:`Vocabulary` lists what one side may say; what does not fit is an error.

This is the end of a process that blocks while it listens; control's is ``daq_core.processes.channel``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

from pydantic import TypeAdapter

PIECE_BYTES = 1 << 20


class Message(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class Present:
    """The first word of every forked process: its number, by which it can be killed."""

    pid: int


class Vocabulary:
    """The classes of what one side may say."""

    def __init__(self, *kinds: type[Message]) -> None:
        self._readers = {kind.__name__: _reader(kind) for kind in kinds}

    def read(self, line: bytes) -> Any:
        """Return what a line says; ValueError when it is none of these."""
        name, fields = next(iter(json.loads(line).items()))
        if name not in self._readers:
            raise ValueError(f"{name} is not expected here")
        return self._readers[name].validate_python(fields)


@cache
def _reader(kind: type[Message]) -> TypeAdapter[Any]:
    """Return what makes a class of its fields: made once, for that takes longer than all reading."""
    return TypeAdapter(kind)


def line_of(message: Message) -> bytes:
    """Return what a message is on the wire."""
    return json.dumps({type(message).__name__: asdict(message)}).encode() + b"\n"


class Lines:
    """One end of a channel: a forked process's, or its lead's. A peer that is gone says and hears nothing."""

    def __init__(self, channel: socket.socket, hears: Vocabulary) -> None:
        self._channel = channel
        self._hears = hears
        self._pending = b""
        self.gone = False

    def fileno(self) -> int:
        return self._channel.fileno()

    def close(self) -> None:
        self._channel.close()

    def tell(self, message: Message) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(line_of(message))

    def introduce(self) -> None:
        """Tell the other side who we are."""
        self.tell(Present(os.getpid()))

    def hear(self, timeout_s: float | None) -> Any | None:
        """Return the next message; None after the timeout (None: never), or when the other side is gone."""
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._channel], [], [], timeout_s)
            if not ready:
                return None
            try:
                received = self._channel.recv(PIECE_BYTES)
            except ConnectionResetError:
                received = b""
            if not received:
                self.gone = True
                return None
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        return self._hears.read(line)

    def wait_for_end(self) -> None:
        """Return when the other side is gone, whatever it says until then."""
        while not self.gone:
            self._pending = b""
            self.hear(None)
