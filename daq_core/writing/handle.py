"""A writer process as the control process has it: forked for a task, spoken to, and killed if need be.

What is said, and by whom, is in ``daq_core.writing.writer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daq_core.errors import Unavailable
from daq_core.processes.kinds import NAMES, WRITER
from daq_core.writing.task import WriterTask

log = logging.getLogger(__name__)

START_S = 4.0  # for a forked process to say that it is there
KILL_S = 0.2  # for a writer that was killed to be gone
MAX_LINE_BYTES = 1 << 22


class WriterLostError(Exception):
    """The writer process ended without saying how its file is."""


class WriterChannel:
    """A writer process and our end of its channel, from :meth:`open` to :meth:`close`."""

    def __init__(self, task: WriterTask, fork: Callable[[], Awaitable[socket.socket]]) -> None:
        self._task = task
        self._fork = fork  # a writer process; returns our end of its channel
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._pid: int | None = None
        self._killed = ""  # why, when we did it

    async def open(self) -> None:
        """Fork the writer and give it its task; Unavailable when none can be started."""
        for is_last in (False, True):
            ours = await self._fork()
            try:
                self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
            except BaseException:
                ours.close()
                raise
            self._writer.write(self._task.to_json().encode() + b"\n")
            try:
                async with asyncio.timeout(START_S):
                    self._pid = (await self.hear())["pid"]
            except (TimeoutError, WriterLostError) as error:
                self.close()
                # A fork server that was killed may have taken the request with it; the next is another.
                if is_last or isinstance(error, TimeoutError):
                    raise Unavailable(
                        "No writer process could be started; its log lines above say why."
                    ) from None
            else:
                return

    def close(self) -> None:
        """Close the channel; a writer that has no file yet ends by that."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """End a writer that has no file yet, wherever it hangs: nothing can be lost with it."""
        if self._pid is not None and self.is_writer_there:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        self.close()

    async def hear(self) -> dict[str, Any]:
        """Return the writer's next message; WriterLostError when it ended without one."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            line = b""
        if not line:
            raise WriterLostError(f"process {self._pid} {self._killed or 'ended unexpectedly'}")
        message: dict[str, Any] = json.loads(line)
        return message

    def order(self, **message: Any) -> None:
        """Send a few bytes to a writer that may have ended; that it has shows when it is heard, not here.

        Past the transport, which would drop the connection, and with it the last word of that writer.
        """
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                os.write(self._writer.get_extra_info("socket").fileno(), json.dumps(message).encode() + b"\n")

    def kill(self, why: str) -> None:
        """End the writer at once; its file stays as it is."""
        self._killed = why
        if self._pid is not None:
            log.error("writer %d of %s %s and is killed", self._pid, self._task.output_file, why)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        # Its end closes the channel, and gives up its hold of the file; one that hangs in a
        # system call is not waited for.
        asyncio.get_running_loop().call_later(KILL_S, self.close)

    @property
    def is_writer_there(self) -> bool:
        """The process has not ended yet, though it may have been killed."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._pid}/comm").read_bytes() == NAMES[WRITER] + b"\n"
        return False
