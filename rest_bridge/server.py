"""Serves the REST application on a port of its own, in the event loop of everything else.

uvicorn does the HTTP. The socket is ours, so that a taken port is known before
anything else starts; signals are ours too, since one place decides how the whole
service ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from daq_core.errors import Unavailable
from rest_bridge.connection import LimitedConnection
from rest_bridge.crowd import Crowd

BACKLOG = 128  # connections that may wait to be accepted
SHUTDOWN_S = 2.0  # what a client may still take for the answer it is waiting for


class RestServer:
    """Usage::

    server = RestServer(make_app(daq), "127.0.0.1", 5000)   # Unavailable: the port is taken
    task = asyncio.create_task(server.run())
    await server.started.wait()
    …
    task.cancel()   # answers what is under way, then ends
    """

    def __init__(
        self, app: FastAPI, bind: str = "127.0.0.1", port: int = 5000, crowd: Crowd | None = None
    ) -> None:
        self._app = app
        self._crowd = crowd or Crowd()
        self._socket = _listen(bind, port)
        self.port: int = self._socket.getsockname()[1]
        self.started = asyncio.Event()
        self._server: _Server | None = None

    @property
    def n_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._server.server_state.connections) if self._server is not None else 0

    async def run(self) -> None:
        """Serve until cancelled."""
        config = uvicorn.Config(
            self._app,
            # annotated as a class, used as what makes connections
            http=functools.partial(LimitedConnection, crowd=self._crowd),  # type: ignore[arg-type]
            lifespan="off",
            ws="none",
            log_config=None,  # the program's own logging
            log_level="warning",
            backlog=BACKLOG,  # uvicorn's is 2048, and so often asyncio tries when no descriptor is left
            access_log=False,  # the routes log what changes something
            proxy_headers=False,  # or a client could put any address into that log
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,  # type: ignore[arg-type]  # annotated int, used as float
        )
        self._server = server = _Server(config, self.started)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        try:
            await asyncio.shield(serving)
        finally:
            self._app.state.closing.set()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with an event for "now it answers"."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event) -> None:
        super().__init__(config)
        self._answers = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._answers.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(bind: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind,
            port,
            socket.AF_INET6 if ":" in bind else socket.AF_INET,  # of a name, the one that the others take
            socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"REST cannot listen on {bind}: {error.strerror}. Check --bind.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"REST cannot listen on {bind} port {port}: {error.strerror}. "
            "Stop what uses the port, or choose another with --rest-port."
        ) from None
    return listening
