"""Slow and greedy clients of REST hold no connection and fill no memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from typing import Any

import pytest
import requests

from rest_bridge import connection
from tests.daq.guarded_rest import BEYOND, TOKEN, guarded, hear


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test need not wait long for."""
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    monkeypatch.setattr(connection, "READ_S", 0.5)


def trickle(client: socket.socket, text: bytes) -> bool:
    """Send a byte at a time for twenty seconds at most; return whether the server hung up."""
    client.settimeout(0.05)
    until = time.monotonic() + 20
    for byte in itertools.cycle(text):
        if time.monotonic() > until:
            return False
        try:
            client.sendall(bytes([byte]))
            if client.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return True


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first", [b"", b"GET /writer/status HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_a_client_that_trickles_its_request_is_dropped(first: bytes) -> None:
    """At once, or after a first request in order."""
    async with guarded() as rest:
        with rest.raw() as client:
            await rest.run(client.sendall, first)
            if first:
                assert b"200 OK" in await rest.run(client.recv, 4096)
            assert await rest.run(trickle, client, b"GET / HTTP/1.1\r\nX: y")


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_says_nothing_is_dropped() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            assert await rest.run(client.recv, 1) == b""


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_nobody_asked_for_does_not_hold_a_connection() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            head = b"POST /writer/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
            await rest.run(client.sendall, head)
            await rest.run(hear, client, b"Writing stopped.")
            assert await rest.run(trickle, client, b"x")


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_read_its_answers_is_dropped() -> None:
    async with guarded() as rest:
        with rest.raw() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with contextlib.suppress(OSError):
                await rest.run(client.sendall, ask * 300)
            async with asyncio.timeout(20):
                while rest.server.n_connections:  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.05)


async def test_an_endless_chunked_body_is_refused_when_it_is_too_large() -> None:
    def endless() -> Any:
        for _ in range(200):
            yield b"x" * 100_000

    async with guarded() as rest:
        try:
            message = await rest.refuses("/daq/config", data=endless())
        except requests.ConnectionError:  # it hung up on us before we had sent it all
            return
        assert "larger than" in message


async def test_a_stranger_is_refused_before_its_body_is_read() -> None:
    async with guarded(bind=BEYOND, token=TOKEN) as rest:
        with rest.raw() as client:
            head = b"POST /daq/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
            await rest.run(client.sendall, head)
            await rest.run(hear, client, b"token")
