"""A writer process as the control process has it: forked for a task, spoken to, and killed if need be.

``daq_core.writing.writer`` has what is said, and by whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daq_core.errors import Unavailable
from daq_core.processes.channel import Channel, ProcessLost
from daq_core.processes.kinds import NAMES, WRITER
from daq_core.writing.task import FROM_WRITER, Abort, Hurry, Open, WriterTask

log = logging.getLogger(__name__)

START_S = 4.0  # for a forked process to say that it is there
KILL_S = 0.2  # for a writer that was killed to be gone


class WriterLostError(Exception):
    """The writer process ended without saying how its file is."""


class WriterProcess:
    """A writer process and our end of its channel, from :meth:`open` to :meth:`close`."""

    def __init__(self, task: WriterTask, fork: Callable[[], Awaitable[socket.socket]]) -> None:
        self._task = task
        self._fork = fork  # a writer process; returns our end of its channel
        self._channel: Channel | None = None
        self._killed = ""  # why, when we did it

    async def open(self) -> None:
        """Fork the writer and give it its task; Unavailable when none can be started."""
        for is_last in (False, True):
            self._channel = await Channel.to(await self._fork(), FROM_WRITER)
            self._channel.tell(self._task)
            try:
                async with asyncio.timeout(START_S):
                    await self._channel.meet()
            except (TimeoutError, ProcessLost) as error:
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
        if self._channel is not None:
            self._channel.close()

    def abandon(self) -> None:
        """End a writer that has no file yet, wherever it hangs: nothing can be lost with it."""
        if self._channel is not None and self.is_there:
            self._channel.kill()
        self.close()

    async def hear(self) -> Any:
        """Return the writer's next message; WriterLostError when it ended without one."""
        assert self._channel is not None
        try:
            return await self._channel.hear()
        except ProcessLost as lost:
            killed = f"process {self._channel.pid} {self._killed}"
            raise WriterLostError(killed if self._killed else str(lost)) from None

    def order(self, message: Open | Hurry | Abort) -> None:
        """Tell a writer something that may have ended; that it has shows when it is heard."""
        if self._channel is not None:
            self._channel.tell(message)

    def kill(self, why: str) -> None:
        """End the writer at once; its file stays as it is."""
        self._killed = why
        if self._channel is not None and self._channel.pid:
            log.error("writer %d of %s %s and is killed", self._channel.pid, self._task.output_file, why)
            self._channel.kill()
        # Its end closes the channel, and gives up its hold of the file; one that hangs in a
        # system call is not waited for.
        asyncio.get_running_loop().call_later(KILL_S, self.close)

    @property
    def is_there(self) -> bool:
        """The process has not ended yet, though it may have been killed."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                return Path(f"/proc/{self._channel.pid}/comm").read_bytes() == NAMES[WRITER] + b"\n"
        return False
