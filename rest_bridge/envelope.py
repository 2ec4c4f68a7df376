"""std_daq's envelope: every answer is HTTP 200 with ``{"status", "message", …}``, errors too.

``std_daq_client`` throws the message of any other HTTP status away, so an
unknown path, a wrong method and a fault of our own are answered like this as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from daq_core.errors import DaqError
from rest_bridge.models import ErrorReply, Reply

log = logging.getLogger(__name__)

MAX_MESSAGE = 4000  # characters; a message may quote what the client sent
MAX_LOGGED_BODY = 300  # bytes


class Envelope(Response):
    """A reply as HTTP."""

    media_type = "application/json"

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.as_json())


def refusal(message: str) -> Envelope:
    """Return the answer to a request that was not carried out."""
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + " …"
    return Envelope(ErrorReply(message=message))


class EnvelopedRoute(APIRoute):
    """A route that answers errors in the envelope, and logs each command with its client and result."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except DaqError as error:
                response = refusal(str(error))
            except Exception:
                log.exception("%s %s went wrong", request.method, request.url.path)
                response = refusal("An error inside the service; its log has the details.")
            if request.method == "POST" and isinstance(response, Envelope):
                _log_command(request, response.reply)
            return response

        return answer


def envelop_other_errors(app: FastAPI) -> None:
    """Answer what no route answers, unknown paths and wrong methods, in the envelope."""

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        asked = f"{request.method} {request.url.path}"
        match error.status_code:
            case 404:
                return refusal(f"404 Not Found: there is no {asked}; the routes are listed at /docs.")
            case 405:
                allowed = (error.headers or {}).get("Allow", "another method")
                return refusal(f"405 Method Not Allowed: {asked} is not possible; use {allowed}.")
            case _:
                return refusal(f"{error.status_code} {error.detail}: {asked}.")


def log_refusal(scope: Scope, message: str) -> None:
    """Log a request that was refused before its route saw it."""
    path = ascii(scope["path"])[1:-1][:MAX_LOGGED_BODY]
    log.warning("%s %s %s -> refused: %s", _client(scope), scope["method"], path, message)


def _client(scope: Scope) -> str:
    return "{}:{}".format(*scope["client"]) if scope["client"] else "unknown client"


def _log_command(request: Request, reply: Reply) -> None:
    body: bytes = getattr(request.state, "body", b"")
    log.log(
        logging.INFO if reply.status == "ok" else logging.WARNING,
        "%s POST %s %s -> %s: %s",
        _client(request.scope),
        request.url.path,
        repr(body[:MAX_LOGGED_BODY])[2:-1],  # bytes' repr: no control character gets into the log
        reply.status,
        ascii(reply.message)[1:-1][:MAX_LOGGED_BODY],
    )
