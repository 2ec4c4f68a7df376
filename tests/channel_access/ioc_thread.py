"""An IOC with a simulated DAQ behind it, in a thread with its own event loop: tests stay plain functions."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from daq_core.config import DaqConfig
from ioc.program.ports import free_ports
from ioc.service.ioc import Ioc
from ioc.values.operator import FaceHealth
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq

T = TypeVar("T")


class IocThread:
    """Usage: ``with IocThread(config) as ioc: …``; PV names by ``ioc.pv("DAQ:State_RBV")``."""

    def __init__(self, config: DaqConfig, **options: Any) -> None:
        """Take `options` as :class:`ioc.service.ioc.Ioc` does."""
        self.config = config
        self.options = options
        self.prefix = f"T{secrets.token_hex(4)}:"
        self.ca_port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        self.health = FaceHealth(redis_connected=True, redis_latency_s=0.001)
        self.daq: SimulatedDaq
        self.ioc: Ioc
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._started = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> IocThread:
        self._thread.start()
        assert self._started.wait(20)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *exc: object) -> None:
        if self._error is None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def pv(self, name: str) -> str:
        return self.prefix + name

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work in the IOC's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def receive(self, n_images: int) -> None:
        """Let images arrive and be written."""
        self.do(self.daq.receive(n_images, period_s=0.005))

    def apply(self, event: Any) -> None:
        """Make an event of the acquisition's state machine happen."""

        async def happen() -> None:
            self.daq.apply(event)

        self.do(happen())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        try:
            async with SimulatedDaq(self.config) as self.daq:
                self.ioc = Ioc(
                    OnlyDoor(self.daq),
                    self.prefix,
                    ca_port=self.ca_port,
                    health=lambda: self.health,
                    **self.options,
                )
                started = asyncio.Event()
                serving = asyncio.create_task(self.ioc.run(started))
                await asyncio.wait(
                    {serving, asyncio.create_task(started.wait())}, return_when=asyncio.FIRST_COMPLETED
                )
                if serving.done():
                    await serving
                self._started.set()
                await self._ended.wait()
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()
