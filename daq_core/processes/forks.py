"""Control's end of the fork server (``daq_core.fork_server``): start it, ask it for processes, end it.

A start is waited for as long as the server gets on (``daq_core.kernels.progress``). What it says is read
by one pending read, which is asked again and again and never given up half-way: a read that is
cancelled when it has taken the word already would lose it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

from daq_core.errors import Unavailable
from daq_core.kernels.progress import READY, Compiled, Diligence
from daq_core.linux.surroundings import environment_of_forks

log = logging.getLogger(__name__)

PROGRAM = ("-m", "daq_core.fork_server")
END_TIMEOUT_S = 2
LOOK_S = 1.0  # between two looks at whether the server gets on
LOADING = "loading what receivers and writers need"
REPEAT_S = 10.0  # between two lines that say how far it is: nobody shall think that it hangs


LogLevel = Literal["INFO", "ERROR"]


class ForkServer:
    """Our end: starts the server, asks it for processes, starts another when it is found dead."""

    def __init__(self, log_level: LogLevel = "INFO") -> None:
        """Take the least severity of what its processes say on stderr.

        Attribute `tell` hears how far a start is that takes long, at least every ``REPEAT_S``.
        """
        self._log_level = log_level
        self.tell: Callable[[str], None] = lambda how_far: log.info("%s", how_far)
        self._hearing: asyncio.Task[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._replacing: asyncio.Task[None] | None = None  # goes on when who asked first stops waiting

    def launch(self) -> None:
        """Let the server begin to load, while we do something else; :meth:`start` waits for it.

        Raises
        ------
        Unavailable
            No process could be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *PROGRAM, str(theirs.fileno()), self._log_level],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environment_of_forks(os.environ),
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
            except OSError as error:
                ours.close()
                raise Unavailable(f"No process could be started: {error.strerror}.") from None
        ours.setblocking(False)
        self._socket = ours

    @property
    def pid(self) -> int | None:
        """The server's own process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the server, if it is not launched yet; returns when it can fork receivers.

        Raises
        ------
        Unavailable
            It did not start; what it said is in the log.
        """
        if self._socket is None:
            self.launch()
        assert self._process is not None
        diligence = Diligence(self._process.pid)
        how_far, told_at_s = LOADING, time.monotonic()
        while (said := await self._hear(LOOK_S)) != READY:
            if said == b"" or diligence.is_lost():
                await self._end()
                raise Unavailable(
                    "The fork server did not start: it ended, or does nothing; its log lines above say why."
                )
            if said:
                diligence.step()
                how_far = str(Compiled.parse(said))
            if said or time.monotonic() - told_at_s > REPEAT_S:
                self.tell(how_far)
                told_at_s = time.monotonic()

    async def _hear(self, timeout_s: float) -> bytes | None:
        """Return what the server says next; b"" when it has ended, None when it says nothing for so long."""
        if self._socket is None:
            return b""
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._read(self._socket))
        hearing = self._hearing
        if not (await asyncio.wait({hearing}, timeout=timeout_s))[0]:
            return None
        self._hearing = None
        return hearing.result()

    async def _read(self, channel: socket.socket) -> bytes:
        with contextlib.suppress(OSError):
            return await asyncio.get_running_loop().sock_recv(channel, 64)
        return b""

    async def fork(self, kind: bytes, *descriptors: int) -> socket.socket:
        """Fork a process of a kind with some descriptors; returns our end of its channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), *descriptors]
            try:
                async with self._lock:
                    with contextlib.suppress(Unavailable):  # it is tried again
                        await self._replaced()
                    if not self._ask(kind, passed):
                        self._replacing = asyncio.create_task(self._replace())
                        await self._replaced()
                        if not self._ask(kind, passed):
                            raise Unavailable("No process could be started: the fork server ended.")
            except BaseException:
                ours.close()
                raise
        return ours

    async def _replace(self) -> None:
        """Start another server in the place of one that is gone."""
        if self._process is not None:
            log.error("the fork server is gone; starting another")
        await self._end()
        await self.start()

    async def _replaced(self) -> None:
        """Wait for the server that is being started, if one is; Unavailable when it does not start."""
        replacing = self._replacing
        if replacing is not None:
            try:
                await asyncio.shield(replacing)
            finally:
                if replacing.done():
                    self._replacing = None

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
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait({self._replacing})
            self._replacing = None
        await self._end()

    async def _end(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)  # nobody asks any more: it ends, and its end closes
            while await self._hear(END_TIMEOUT_S):  # what it still had to say
                pass
        self.kill()

    def kill(self) -> None:
        """End the server at once, if there is one; it holds nothing that could be lost."""
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None
