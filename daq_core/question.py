"""One question to a process that is forked for it, and its answer: a line of JSON each.

For what may wait on a file system that hangs: the process does, and nobody else.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from daq_core.errors import Unavailable
from daq_core.forks import ForkServer

Words = Mapping[str, Any]


async def ask(
    forks: ForkServer, kind: bytes, question: Words, timeout_s: float, *descriptors: int
) -> dict[str, Any]:
    """Return what a process of a kind, forked with some descriptors, answers to a question.

    Raises
    ------
    TimeoutError
        It did not answer in time. It ends when its file system lets it.
    Unavailable
        It ended without an answer, or no process could be started.
    """
    reader, writer = await asyncio.open_connection(sock=await forks.fork(kind, *descriptors))
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        async with asyncio.timeout(timeout_s):
            line = await reader.readline()
    except ConnectionError:
        line = b""
    finally:
        writer.close()
    if not line:
        raise Unavailable("A process ended before it had answered; its log lines above say why.")
    answer: dict[str, Any] = json.loads(line)
    return answer


def answer(channel: socket.socket, work: Callable[[dict[str, Any]], Words]) -> None:
    """Answer the question that comes over a channel; nobody may be there any more to hear it."""
    with suppress(BrokenPipeError), channel.makefile("rwb") as stream:
        question = stream.readline()
        if question:
            stream.write(json.dumps(work(json.loads(question))).encode() + b"\n")
