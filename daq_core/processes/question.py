"""One question to a process that is forked for it, and its answer: a line of JSON each.

For what may wait on a file system that hangs: the process does, and nobody else. It says
its number first, so that it can be killed when it does not answer in time; where nobody is
left who would, the kernel ends it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from daq_core.errors import Unavailable
from daq_core.processes.forks import ForkServer

log = logging.getLogger(__name__)

Words = Mapping[str, Any]

GRACE_S = 1.0  # after its deadline a process ends by itself, where nobody is left to kill it


async def ask(
    forks: ForkServer, kind: bytes, question: Words, timeout_s: float, *descriptors: int
) -> dict[str, Any]:
    """Return what a process of a kind, forked with some descriptors, answers to a question.

    Raises
    ------
    TimeoutError
        It did not answer in time, and was killed; it ends when its file system lets it.
    Unavailable
        It ended without an answer, or no process could be started.
    """
    reader, writer = await asyncio.open_connection(sock=await forks.fork(kind, *descriptors))
    pid = 0
    line = b""
    try:
        writer.write(
            json.dumps({"end_after_s": timeout_s + GRACE_S, "question": dict(question)}).encode() + b"\n"
        )
        async with asyncio.timeout(timeout_s):
            if said := await reader.readline():
                pid = int(said)
                line = await reader.readline()
    except ConnectionError:
        line = b""
    except BaseException:  # too late, or nobody wants to know any more
        _kill(pid)
        raise
    finally:
        writer.close()
    if not line:
        raise Unavailable("A process ended before it had answered; its log lines above say why.")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _kill(pid: int) -> None:
    """End a process that still holds its end of the channel: no other can have its number."""
    if pid:
        log.warning("process %d did not answer in time and is killed", pid)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def answer(channel: socket.socket, work: Callable[[dict[str, Any]], Words]) -> None:
    """Answer the question that comes over a channel; nobody may be there any more to hear it."""
    with suppress(BrokenPipeError), channel.makefile("rwb") as stream:
        line = stream.readline()
        if not line:
            return
        asked = json.loads(line)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends us; the fork server ignores it
        signal.setitimer(signal.ITIMER_REAL, asked["end_after_s"])
        stream.write(f"{os.getpid()}\n".encode())
        stream.flush()
        stream.write(json.dumps(work(asked["question"])).encode() + b"\n")
