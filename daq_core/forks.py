"""Control's end of the fork server (``daq_core.fork_server``): start it, ask it for processes, end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from typing import Literal

from daq_core.errors import Unavailable

log = logging.getLogger(__name__)

START_TIMEOUT_S = 90  # compiling all kernels takes ten seconds on a quiet machine
END_TIMEOUT_S = 2


LogLevel = Literal["INFO", "ERROR"]


class ForkServer:
    """Our end: starts the server, asks it for processes, starts another when it is found dead."""

    def __init__(self, log_level: LogLevel = "INFO") -> None:
        """Take the least severity of what its processes say on stderr, once they are loaded."""
        self._log_level = log_level
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()

    def launch(self) -> None:
        """Let the server begin to load, while we do something else; :meth:`start` waits for it.

        Raises
        ------
        Unavailable
            No process could be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "daq_core.fork_server", str(theirs.fileno()), self._log_level],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # a process that forks has one thread
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
            except OSError as error:
                ours.close()
                raise Unavailable(f"No process could be started: {error.strerror}.") from None
        ours.setblocking(False)
        self._socket = ours

    async def start(self) -> None:
        """Start the server, if it is not launched yet; returns when it can fork receivers.

        Raises
        ------
        Unavailable
            It did not start; what it said is in the log.
        """
        if self._socket is None:
            self.launch()
        if not await self._hear(START_TIMEOUT_S):
            await self.end()
            raise Unavailable("The fork server did not start; its log lines above say why.")

    async def _hear(self, timeout_s: float) -> bytes:
        """Return the server's next byte; b"" when it has ended, or says nothing for so long."""
        if self._socket is None:
            return b""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().sock_recv(self._socket, 1)
        except (TimeoutError, OSError):
            return b""

    async def fork(self, kind: bytes, *descriptors: int) -> socket.socket:
        """Fork a process of a kind with some descriptors; returns our end of its channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), *descriptors]
            try:
                async with self._lock:
                    if not self._ask(kind, passed):
                        if self._process is not None:
                            log.error("the fork server is gone; starting another")
                        await self.end()
                        await self.start()
                        if not self._ask(kind, passed):
                            raise Unavailable("No process could be started: the fork server ended.")
            except BaseException:
                ours.close()
                raise
        return ours

    def _ask(self, kind: bytes, descriptors: list[int]) -> bool:
        """Ask for a process; False when nobody is there to be asked."""
        try:
            if self._socket is None:
                return False
            socket.send_fds(self._socket, [kind], descriptors)
        except OSError:
            return False
        return True

    async def end(self) -> None:
        """End the server in order; what it has forked goes on."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)  # nobody asks any more: it ends, and its end closes
            await self._hear(END_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the server at once, if there is one; it holds nothing that could be lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None
