"""One HTTP connection, with limits on what a silent, slow or greedy client can hold.

uvicorn closes a connection that idles after an answer; these limits are for what
comes before and during one. A body that trickles in is ``request_body``'s.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 200  # one more is closed; each client holds one or two
REQUEST_S = 10.0  # for a request's head to be there, from the connection or the answer before it on
READ_S = 10.0  # for a client to take up some of an answer that does not fit into the socket


class LimitedConnection(H11Protocol):
    """An HTTP/1.1 connection that is dropped when its client does not do its part in time."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of TCP alone
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._give(REQUEST_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._take_back_when_it_is_our_turn()

    def on_response_complete(self) -> None:
        self._give(REQUEST_S)
        super().on_response_complete()  # which may find the next request waiting already
        self._take_back_when_it_is_our_turn()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._give(READ_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_back_when_it_is_our_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_back()
        super().connection_lost(exc)

    def _take_back_when_it_is_our_turn(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and not self.flow.write_paused:
            self._take_back()

    def _give(self, seconds: float) -> None:
        self._take_back()
        self._patience = self.loop.call_later(seconds, self.transport.abort)

    def _take_back(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
