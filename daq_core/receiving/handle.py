"""A receiver process as the control process has it: forked, given its task, and ended."""

from __future__ import annotations

import asyncio
import socket
from typing import Self

from daq_core.errors import Unavailable
from daq_core.processes.channel import Channel, ProcessLost
from daq_core.receiving.task import FROM_RECEIVER, NotListening, ReceiverTask

START_TIMEOUT_S = 30  # for sockets to open and the ring to be filled with pages
END_TIMEOUT_S = 2


class ReceiverGone(Unavailable):
    """The receiver, or the process that forks it, ended without a word: it was killed, or it crashed."""


class ReceiverProcess:
    """A running receiver: its process id, and the channel whose end is its end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def pid(self) -> int:
        return self._channel.pid

    @classmethod
    async def start(cls, channel: socket.socket, task: ReceiverTask) -> Self:
        """Give a freshly forked receiver its task; returns when it listens.

        Raises
        ------
        Unavailable
            It cannot; the text says why. ReceiverGone: it did not say so itself.
        """
        receiver = cls(await Channel.to(channel, FROM_RECEIVER))
        receiver._channel.tell(task)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):  # wait_for of Python 3.11 can lose a cancellation
                await receiver._channel.meet()
                said = await receiver._channel.hear()
        except TimeoutError:
            said = NotListening(f"The receiver process did not start within {START_TIMEOUT_S} s.")
        except ProcessLost:
            await receiver.end()
            raise ReceiverGone("The receiver process did not start; its log lines above say why.") from None
        except BaseException:
            await receiver.end()
            raise
        if isinstance(said, NotListening):
            await receiver.end()
            raise Unavailable(said.reason)
        return receiver

    async def wait(self) -> None:
        """Wait for the end of the process."""
        await self._channel.ended()

    def kill(self) -> None:
        self._channel.kill()

    async def end(self) -> None:
        """Let the process end by itself, or kill it if it does not."""
        self._channel.say_no_more()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
        self._channel.close()
