"""The fork server: everything loaded, no threads, so that receivers and writers start in milliseconds.

``daq_core.pipeline`` starts one as ``python -m daq_core.forks`` and asks it for
processes; a start or a config change never waits for an interpreter, a compiler
or a kernel cache. Control itself has threads and a loop and must not be forked.

A request is one byte, which kind of process, with descriptors: of the channel
the process talks over, of the ring, and whatever else its kind needs. A process
ends by itself when its channel closes, and so does the server; nobody waits for
them but the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Literal

from daq_core.errors import Unavailable
from daq_core.urgency import be_usual, hurry

log = logging.getLogger("daq_core.forks")  # also as __main__

RECEIVER, WRITER, LOOK = b"r", b"w", b"l"
NAMES = {RECEIVER: b"daq-receiver", WRITER: b"daq-writer", LOOK: b"daq-look"}  # as ps and top show them
PR_SET_NAME = 15  # prctl(2)
MAX_DESCRIPTORS = 4

COMPILING = "compiling for this machine, which happens once"
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
                    [sys.executable, "-m", "daq_core.forks", str(theirs.fileno()), self._log_level],
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
        """Start the server, if it is not launched yet; returns when it has loaded everything.

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


Work = Callable[..., None]


def serve(requests: socket.socket, kinds: Mapping[bytes, Work]) -> None:
    """Fork a process for each request until nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    while True:
        kind, descriptors, _, _ = socket.recv_fds(requests, 1, MAX_DESCRIPTORS)
        if not kind:
            return
        if os.fork() == 0:
            requests.close()
            _name(NAMES[kind])
            if kind == RECEIVER:
                be_usual()
            _live(kinds[kind], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _live(work: Work, descriptors: list[int]) -> None:
    """Do one piece of work in a freshly forked process, and end it."""
    status = 1
    try:
        with socket.socket(fileno=descriptors[0]) as channel:
            work(channel, *descriptors[1:])
        status = 0
    except Exception:
        log.exception("a forked process failed")
    finally:
        logging.shutdown()
        os._exit(status)  # no clean-up of libraries: HDF5's could raise what close has reported already


def _name(name: bytes) -> None:
    """Give this process the name that ps and top show."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def _tell_of_compiling(n_done: int, n_kernels: int) -> None:
    log.info("%s: %d of %d kernels", COMPILING, n_done, n_kernels)


def main() -> int:
    """Run as the fork server; descriptor of its request socket and level of its log are the arguments."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for quiet in (signal.SIGINT, signal.SIGTERM):  # control ends us, by closing the socket
        signal.signal(quiet, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    resource.setrlimit(resource.RLIMIT_RTTIME, (hard, hard))  # control's own is shorter: ioc.precedence
    _name(b"daq-forks")
    gc.disable()  # what is loaded stays: looking for garbage in it takes a seventh of the time
    from daq_core.compiled import load_kernels
    from daq_core.compression import load_filters
    from daq_core.folder import run_look
    from daq_core.receiver import run_receiver
    from daq_core.writer import run_writer

    load_kernels(_tell_of_compiling)
    load_filters()
    gc.freeze()  # nor do the children look through it, which would copy its pages
    gc.enable()
    hurry()
    logging.getLogger().setLevel(sys.argv[2])

    with socket.socket(fileno=int(sys.argv[1])) as requests:
        requests.sendall(b"!")
        serve(requests, {RECEIVER: run_receiver, WRITER: run_writer, LOOK: run_look})
    return 0


if __name__ == "__main__":
    sys.exit(main())
