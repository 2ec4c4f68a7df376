"""One run as the control process sees it: its writer process, and what that says.

The other end of the conversation is described in ``daq_core.writer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import Any

from daq_core.errors import InvalidRequest, Unavailable
from daq_core.writer import WriterTask

CHECK_TIMEOUT_S = 4.0


class WriterLostError(Exception):
    """The writer process ended without saying how its file is."""


class Run:
    """A writer process and the channel to it."""

    def __init__(self, task: WriterTask) -> None:
        self.task = task
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._pid: int | None = None

    async def connect(self, channel: socket.socket) -> None:
        """Take up the conversation with a freshly forked writer."""
        self._reader, self._writer = await asyncio.open_connection(sock=channel, limit=1 << 22)
        self._writer.write(self.task.to_json().encode() + b"\n")

    async def check(self) -> dict[str, Any]:
        """Wait for the writer's look at the path: free space and a warning.

        Raises
        ------
        InvalidRequest  the file cannot be written there; the writer has ended
        Unavailable     the file system did not answer, or the writer died
        """
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                self._pid = (await self.hear())["pid"]
                answer = await self.hear()
        except TimeoutError:
            self.kill()
            raise Unavailable(
                f"The file system of {self.task.output_file} did not answer within {CHECK_TIMEOUT_S:.0f} s."
            ) from None
        except WriterLostError as error:
            raise Unavailable(f"The writer process could not be started: {error}.") from None
        if "refused" in answer:
            self.close()
            raise InvalidRequest(answer["refused"])
        checked: dict[str, Any] = answer["checked"]
        return checked

    def tell(self, **message: Any) -> None:
        """Send a message; a writer that is gone shows when it is heard, not here."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """Return the writer's next message; WriterLostError when it ended without one."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            line = b""
        if not line:
            raise WriterLostError(f"process {self._pid} ended unexpectedly")
        message: dict[str, Any] = json.loads(line)
        return message

    def kill(self) -> None:
        """End the writer at once; its file stays as it is."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._writer.close()

    @property
    def pid(self) -> int | None:
        return self._pid

