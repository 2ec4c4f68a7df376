"""One question to a process that is forked for it, and its answer.

For what may wait on a file system that hangs: the process does, and nobody else. It says
its number first, so that it can be killed when it does not answer in time; where nobody is
left who would, the kernel ends it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from daq_core.errors import Unavailable
from daq_core.processes.channel import Channel, ProcessLost
from daq_core.processes.forks import ForkServer
from daq_core.processes.lines import Lines, Message, Vocabulary

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)

GRACE_S = 1.0  # after its deadline a process ends by itself, where nobody is left to kill it


@dataclass(frozen=True)
class EndAfter:
    """Said before the question: how long it is worth anything."""

    seconds: float


async def ask(
    forks: ForkServer,
    kind: bytes,
    question: Message,
    answer_is: type[Answer],
    timeout_s: float,
    *descriptors: int,
) -> Answer:
    """Return what a process of a kind, forked with some descriptors, answers to a question.

    Raises
    ------
    TimeoutError
        It did not answer in time, and was killed; it ends when its file system lets it.
    Unavailable
        It ended without an answer, or no process could be started.
    """
    channel = await Channel.to(await forks.fork(kind, *descriptors), Vocabulary(answer_is))
    try:
        channel.tell(EndAfter(timeout_s + GRACE_S))
        channel.tell(question)
        async with asyncio.timeout(timeout_s):
            await channel.meet()
            answer: Answer = await channel.hear()
    except ProcessLost:
        raise Unavailable("A process ended before it had answered; its log lines above say why.") from None
    except BaseException:  # too late, or nobody wants to know any more
        if channel.pid:
            log.warning("process %d did not answer in time and is killed", channel.pid)
        channel.kill()
        raise
    finally:
        channel.close()
    return answer


def answer(channel: socket.socket, question_is: type[Message], work: Callable[[Any], Message]) -> None:
    """Answer the question that comes over a channel; nobody may be there any more to hear it."""
    asker = Lines(channel, Vocabulary(EndAfter, question_is))
    if (end_after := asker.hear(None)) is None:
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends us; the fork server ignores it
    signal.setitimer(signal.ITIMER_REAL, end_after.seconds)
    asker.introduce()
    if (question := asker.hear(None)) is not None:
        asker.tell(work(question))
