"""Many clients that say nothing, or little and politely: whoever comes next is answered all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from http.client import BadStatusLine, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from daq_core.config import DaqConfig
from daq_core.linux.network import parse_networks
from ioc.program.ports import LOOPBACK
from rest_bridge.app import make_app
from rest_bridge.crowd import Crowd
from rest_bridge.server import RestServer
from tests.daq.simulated_daq import SimulatedDaq
from tests.processes.service import JUNGFRAU_2

HALF_A_HEAD = b"GET /writer/status HTTP/1.1\r\nHost: loc"
STATUS = b"GET /writer/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
STOP = b"POST /writer/stop HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_A_BODY = b'POST /daq/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"bit'
ELSEWHERE = "127.0.0.2"  # in these tests


class Visited:
    """A REST server with few places; 127.0.0.1 alone plays its machine."""

    def __init__(self, daq: SimulatedDaq, crowd: Crowd) -> None:
        self.daq = daq
        self.server = RestServer(make_app(daq), LOOPBACK, 0, crowd)
        self.open = contextlib.ExitStack()

    async def come(self, address: str = LOOPBACK, say: bytes = b"") -> socket.socket:
        """Connect from an address and say something."""
        client = self.open.enter_context(socket.socket())
        client.bind((address, 0))
        client.settimeout(30)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, client.connect, (LOOPBACK, self.server.port))
        await loop.run_in_executor(None, client.sendall, say)
        return client

    async def answer(self, client: socket.socket) -> int | None:
        """Return the HTTP status of what a client is answered; None when its connection was closed."""

        def hear() -> int | None:
            with contextlib.suppress(ConnectionError, BadStatusLine), HTTPResponse(client) as response:
                response.begin()
                response.read()
                return response.status
            return None

        return await asyncio.get_running_loop().run_in_executor(None, hear)

    async def until_there(self, n: int) -> None:
        async with asyncio.timeout(30):
            while self.server.n_connections != n:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def visited(**limits: Any) -> AsyncIterator[Visited]:
    crowd = Crowd(here=parse_networks(LOOPBACK), **limits)
    async with SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as daq:
        rest = Visited(daq, crowd)
        task = asyncio.create_task(rest.server.run())
        await rest.server.started.wait()
        try:
            with rest.open:
                yield rest
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("said", [b"", HALF_A_HEAD, HALF_A_BODY, STATUS])
@pytest.mark.parametrize("address", [LOOPBACK, ELSEWHERE])
async def test_more_than_there_are_places_for_keep_nobody_out(said: bytes, address: str) -> None:
    async with visited(total=10, per_address=8, kept=2) as rest:
        for _ in range(15):
            client = await rest.come(address, said)
            if said == STATUS:  # politely: its next request would come in a moment
                assert await rest.answer(client) == 200
        for asker in (LOOPBACK, ELSEWHERE, LOOPBACK):
            for request in (STATUS, STOP):
                assert await rest.answer(await rest.come(asker, request)) == 200
        assert rest.server.n_connections <= 10


async def test_many_that_come_at_one_instant_do_not_exceed_the_places() -> None:
    async with visited(total=10) as rest:
        await asyncio.gather(*(rest.come(say=HALF_A_HEAD) for _ in range(60)))
        await rest.until_there(10)


async def test_who_waits_for_a_run_stays_whoever_comes(tmp_path: Path) -> None:
    async with visited(total=5) as rest:
        body = b'{"output_file": "%s/a.h5", "n_images": 1}' % str(tmp_path).encode()
        head = b"POST /writer/write_sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        waiting = await rest.come(say=head + body)
        async with asyncio.timeout(30):
            while not rest.daq.snapshot.status.acquisition.running:  # noqa: ASYNC110 - as a client would
                await asyncio.sleep(0.01)
        for _ in range(10):
            await rest.come(say=HALF_A_HEAD)
        await rest.daq.receive(1)
        assert await rest.answer(waiting) == 200


async def test_the_one_idle_longest_is_closed_and_the_others_are_not() -> None:
    async with visited(total=3) as rest:
        first, second, third = [await rest.come() for _ in range(3)]
        await rest.until_there(3)
        for client in (first, third):  # so the second is idle longest
            client.sendall(STATUS)
            assert await rest.answer(client) == 200
        await rest.come()
        assert await rest.answer(second) is None
        for client in (first, third):
            client.sendall(STATUS)
            assert await rest.answer(client) == 200
