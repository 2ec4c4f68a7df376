"""A question to a forked process: answered, or the process is killed; real processes over real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from daq_core.errors import Unavailable
from daq_core.processes.group_signals import leave_to_control
from daq_core.processes.lines import Lines, Present, Vocabulary
from daq_core.processes.question import EndAfter, answer, ask


@dataclass(frozen=True)
class Number:
    n: int


Work = Callable[[Number], Number]


class Forks:
    """Forks a process for each question, as the fork server does."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.pids: list[int] = []

    async def fork(self, kind: bytes, *descriptors: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.pids.append(forked(ours, theirs, self._work))
        return ours


def forked(ours: socket.socket, theirs: socket.socket, work: Work) -> int:
    """Fork a process that answers one question; returns its number."""
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            leave_to_control()  # as the fork server does
            answer(theirs, Number, work)
        finally:
            os._exit(0)
    theirs.close()
    return pid


async def ended(pid: int) -> int:
    """Wait for the end of a process and return how it ended."""
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


async def test_a_question_is_answered() -> None:
    forks = Forks(lambda question: Number(2 * question.n))
    assert await ask(forks, b"l", Number(21), Number, 30) == Number(42)  # type: ignore[arg-type]
    assert await ended(forks.pids[0]) == 0


def hangs(question: Number) -> Number:
    time.sleep(600)
    return question


def stands_still(question: Number) -> Number:
    os.kill(os.getpid(), signal.SIGSTOP)
    return question


def deaf(question: Number) -> Number:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)
    return question


@pytest.mark.parametrize("work", [hangs, stands_still, deaf])
async def test_what_does_not_answer_is_killed_at_its_deadline(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    forks = Forks(work)
    with pytest.raises(TimeoutError):
        await ask(forks, b"l", Number(0), Number, 0.5)  # type: ignore[arg-type]
    assert await ended(forks.pids[0]) == -signal.SIGKILL
    assert f"process {forks.pids[0]} did not answer in time and is killed" in caplog.text


async def test_what_nobody_waits_for_any_more_is_killed() -> None:
    begun, begins = os.pipe()

    def hangs_and_says_so(question: Number) -> Number:
        os.write(begins, b"!")
        return hangs(question)

    forks = Forks(hangs_and_says_so)
    asking = asyncio.create_task(ask(forks, b"l", Number(0), Number, 600))  # type: ignore[arg-type]
    assert await asyncio.to_thread(os.read, begun, 1) == b"!"
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await ended(forks.pids[0]) == -signal.SIGKILL
    os.close(begun)
    os.close(begins)


def test_a_process_whose_asker_is_gone_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    pid = forked(ours, theirs, hangs)
    process = Lines(ours, Vocabulary(Present))
    process.tell(EndAfter(0.5))
    process.tell(Number(0))
    assert process.hear(None) == Present(pid)  # it is at work
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGALRM


async def test_a_process_that_ends_without_an_answer_is_an_error() -> None:
    def fails(question: Number) -> Number:
        os._exit(3)

    forks = Forks(fails)
    with pytest.raises(Unavailable, match="ended before it had answered"):
        await ask(forks, b"l", Number(0), Number, 30)  # type: ignore[arg-type]
    assert await ended(forks.pids[0]) == 3
