"""A REST server with rules in front of a simulated DAQ, and requests to it from an address of one's choice.

A service beyond loopback is one whose rules were made for such an address; the socket stays on
loopback, where 127.0.0.1 plays a machine that is trusted and 127.0.0.2 one that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from daq_core.config import DaqConfig
from ioc.program.ports import LOOPBACK
from rest_bridge.access import Access
from rest_bridge.app import make_app
from rest_bridge.server import RestServer
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq
from tests.processes.service import JUNGFRAU_2

BEYOND = "192.0.2.10"
STRANGER = "127.0.0.2"
TOKEN = "a-secret-that-nobody-guesses-0123456789"


class FromAddress(HTTPAdapter):
    """Connects from an address of one's choice."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **options)


class Guarded:
    """A REST server with rules, in front of a simulated DAQ."""

    def __init__(self, daq: SimulatedDaq, access: Access) -> None:
        self.daq = daq
        self.server = RestServer(make_app(OnlyDoor(daq), access=access), LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{self.server.port}"
        self.threads = ThreadPoolExecutor(max_workers=4)

    async def run(self, work: Any, *args: Any, **options: Any) -> Any:
        """Run what blocks in a thread, as a client elsewhere would be."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(work, *args, **options))

    async def ask(
        self, path: str, method: str = "POST", address: str = STRANGER, **options: Any
    ) -> requests.Response:
        def ask() -> requests.Response:
            with requests.Session() as session:
                session.trust_env = False
                session.mount("http://", FromAddress(address))
                return session.request(method, self.url + path, timeout=30, **options)

        return await self.run(ask)

    async def refuses(self, path: str = "/writer/write_async", **options: Any) -> str:
        """Demand that a start is refused and nothing happens; return why."""
        before = self.daq.snapshot.status, self.daq.snapshot.config
        answer = await self.ask(path, **options)
        assert answer.status_code == 200
        reply = answer.json()
        assert (reply["status"], set(reply)) == ("error", {"status", "message"})
        assert TOKEN not in answer.text
        assert (self.daq.snapshot.status, self.daq.snapshot.config) == before
        return str(reply["message"])

    def raw(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server.port), timeout=30)


@contextlib.asynccontextmanager
async def guarded(**rules: Any) -> AsyncIterator[Guarded]:
    async with SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as daq:
        rest = Guarded(daq, Access(**rules))
        task = asyncio.create_task(rest.server.run())
        await rest.server.started.wait()
        try:
            yield rest
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rest.threads.shutdown()


def hear(client: socket.socket, wanted: bytes) -> None:
    """Read until something was said."""
    heard = b""
    while wanted not in heard:
        part = client.recv(65536)
        assert part, f"the server hung up after {heard!r}"
        heard += part
