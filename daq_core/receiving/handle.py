"""A receiver process as the control process has it: forked, given its task, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import Any, Self

from daq_core.errors import Unavailable
from daq_core.receiving.task import ReceiverTask

START_TIMEOUT_S = 30  # for sockets to open and the ring to be filled with pages
END_TIMEOUT_S = 2


class ReceiverGone(Unavailable):
    """The receiver, or who was to fork it, ended without a word: somebody has killed it, or it crashed."""


class ReceiverProcess:
    """A running receiver: its process id, and the channel whose end is its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pid = 0

    @classmethod
    async def start(cls, channel: socket.socket, task: ReceiverTask) -> Self:
        """Give a freshly forked receiver its task; returns when it listens.

        Raises
        ------
        Unavailable
            It cannot; the text says why. ReceiverGone: it did not say so itself.
        """
        receiver = cls(*await asyncio.open_connection(sock=channel))
        receiver._writer.write(task.to_json().encode() + b"\n")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):  # wait_for of Python 3.11 can lose a cancellation
                receiver.pid = (await receiver._hear())["pid"]
                said = await receiver._hear()
        except TimeoutError:
            said = {"error": f"The receiver process did not start within {START_TIMEOUT_S} s."}
        except (ConnectionError, ValueError):
            await receiver.end()
            raise ReceiverGone("The receiver process did not start; its log lines above say why.") from None
        except BaseException:
            await receiver.end()
            raise
        if "error" in said:
            await receiver.end()
            raise Unavailable(said["error"])
        return receiver

    async def _hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._reader.readline())
        return message

    async def wait(self) -> None:
        """Wait for the end of the process."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Let the process end by itself, or kill it if it does not."""
        if self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
        self._writer.close()
