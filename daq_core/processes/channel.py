"""A forked process as control has it: spoken to in lines, known by its number, killed if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any, Self

from daq_core.processes.lines import Message, Present, Vocabulary, line_of

MAX_LINE_BYTES = 1 << 22


class ProcessLost(Exception):
    """The process ended without a word, or in the middle of one."""


class Channel:
    """Our end of the socket to a process; one that is closed ends the process, unless it has a file open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hears: Vocabulary) -> None:
        self._reader = reader
        self._writer = writer
        self._hears = hears
        self.pid = 0  # until it has said it

    @classmethod
    async def to(cls, ours: socket.socket, hears: Vocabulary) -> Self:
        """Take over our end of a socket to a freshly forked process."""
        try:
            return cls(*await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES), hears)
        except BaseException:
            ours.close()
            raise

    def tell(self, message: Message) -> None:
        """Send a message to a process that may have ended; that it has shows when it is heard, not here.

        Past the transport, which would drop the connection, and with it the last word of that process.
        """
        if self._writer.is_closing():
            return
        line = line_of(message)
        with contextlib.suppress(OSError):
            n_sent = os.write(self._writer.get_extra_info("socket").fileno(), line)
            if n_sent < len(line):
                self._writer.write(line[n_sent:])

    async def meet(self) -> None:
        """Hear which process it is: its first word; ProcessLost when there is none."""
        said = await self._hear(Vocabulary(Present))
        self.pid = said.pid

    async def hear(self) -> Any:
        """Return its next message; ProcessLost when it ended without one."""
        return await self._hear(self._hears)

    async def _hear(self, vocabulary: Vocabulary) -> Any:
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):  # reset, or a line without an end
            line = b""
        if not line.endswith(b"\n"):
            raise ProcessLost(f"process {self.pid} ended unexpectedly")
        return vocabulary.read(line)

    async def ended(self) -> None:
        """Wait until the process has closed its end, as its own end does."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()

    def kill(self) -> None:
        """End a process at once that has not closed its end: no other can have its number."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def say_no_more(self) -> None:
        """Let the process know that nobody tells it anything any more; what it says can still be heard."""
        if self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()
