"""A service without a descriptor left says so in one line, and accepts connections when it has some again."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

import pytest

from ioc.service.loop_errors import LoopErrors


async def test_connections_that_cannot_be_accepted_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Found by torture: a hundred tries, each with a traceback."""
    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    accepted = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))  # all below are taken, or this is
        fillers = []
        try:
            while True:
                fillers.append(os.dup(client.fileno()))
        except OSError:
            pass
        try:
            await asyncio.get_running_loop().sock_connect(client, server.sockets[0].getsockname())
            await asyncio.sleep(0.2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for filler in fillers:
                os.close(filler)
        said = "connections have to wait: Too many open files. More descriptors: "
        assert [record.message for record in caplog.records] == [
            said + "ulimit -n, or LimitNOFILE of systemd."
        ]
        await asyncio.wait_for(accepted.wait(), 20)
    server.close()
    await server.wait_closed()


async def test_other_errors_are_reported_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    LoopErrors()(asyncio.get_running_loop(), {"message": "something else", "exception": OSError(5, "I/O")})
    assert "something else" in caplog.text
