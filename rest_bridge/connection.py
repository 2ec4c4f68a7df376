"""One HTTP connection, with limits on what a silent, slow or greedy client can hold.

uvicorn closes a connection that idles after an answer; these limits are for what
comes before and during one. A body that trickles in is ``request_body``'s. How many
there may be, and who gives way to a new one, is in ``crowd``.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from rest_bridge.crowd import Crowd

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REQUEST_S = 10.0  # for a request's head to be there, from the connection or the answer before it on
READ_S = 10.0  # for a client to take up some of an answer that does not fit into the socket


class LimitedConnection(H11Protocol):
    """An HTTP/1.1 connection that is dropped when its client does not do its part in time.

    Its requests have ``request.state.is_gone()``, which tells at any moment whether their client has left.
    """

    def __init__(self, *arguments: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app = self._with_is_gone(self.app)
        self._crowd = crowd
        self._moved_at_s = self.loop.time()
        self._patience: asyncio.TimerHandle | None = None

    def _with_is_gone(self, app: ASGIApp) -> ASGIApp:
        async def carry_out(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"]["is_gone"] = self.is_gone
            await app(scope, receive, send)

        return carry_out

    def is_gone(self) -> bool:
        """Ask the kernel: that the client has closed reaches us only after what it had sent before."""
        if self.transport.is_closing():
            return True
        ended = select.poll()
        ended.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(ended.poll(0))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of TCP alone
        super().connection_made(transport)
        gone = self._crowd.gives_way(self, self._others())
        if gone is not self:
            self._give(REQUEST_S)
        if gone is not None:
            gone.leave()

    def _others(self) -> list[LimitedConnection]:
        """Return those that are connected, but for this one and those that are being closed."""
        others = [other for other in self.connections if isinstance(other, LimitedConnection)]
        return [other for other in others if other is not self and not other.transport.is_closing()]

    @property
    def address(self) -> str:
        """Where the client is."""
        return self.client[0] if self.client else ""

    @property
    def idle_since(self) -> float | None:
        """When the client last did its part; None while it waits for us."""
        return None if self._is_our_turn() and not self.cycle.more_body else self._moved_at_s

    def leave(self) -> None:
        """Close: another one needs the place."""
        if self.flow.write_paused:  # what is still to be sent would keep it
            self.transport.abort()
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._moved_at_s = self.loop.time()
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
        if self._is_our_turn():
            self._take_back()

    def _is_our_turn(self) -> bool:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return is_answering and not self.flow.write_paused

    def _give(self, seconds: float) -> None:
        self._take_back()
        self._moved_at_s = self.loop.time()
        self._patience = self.loop.call_later(seconds, self.transport.abort)

    def _take_back(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
