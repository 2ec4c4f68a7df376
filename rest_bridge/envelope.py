"""std_daq's envelope: every answer of its routes is HTTP 200 with ``{"status", "message", …}``, errors too.

``std_daq_client`` throws the message of any other HTTP status away, so a wrong
method and a fault of our own are answered like this as well. An unknown path is
404 with the same JSON: nothing may take it for a service that is well.
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

STD_DAQ_ROUTES = ("/writer/", "/daq/")
MAX_MESSAGE = 4000  # characters; a message may quote what the client sent
MAX_LOGGED_BODY = 300  # bytes


class Envelope(Response):
    """A reply as HTTP."""

    media_type = "application/json"

    def __init__(self, reply: Reply, http_status: int = 200) -> None:
        self.reply = reply
        self.reason = reply.message  # what the log says of it
        super().__init__(reply.as_json(), http_status)


def refusal(message: str, http_status: int = 200) -> Envelope:
    """Return the answer to a request that was not carried out."""
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + " …"
    return Envelope(ErrorReply(message=message), http_status)


class EnvelopedRoute(APIRoute):
    """A route that answers errors in the envelope, and logs each command with its client and result."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except DaqError as error:
                response = refusal(str(error))
                if isinstance(error.__cause__, DaqError):
                    response.reason = str(error.__cause__)  # in our words, where std_daq has others
            except Exception:
                log.exception("%s %s went wrong", request.method, request.url.path)
                response = refusal("An error inside the service; its log has the details.")
            if request.method == "POST" and isinstance(response, Envelope):
                _log_command(request, response)
            return response

        return answer


def envelop_other_errors(app: FastAPI) -> None:
    """Answer what no route answers in the envelope: unknown paths as HTTP 404, wrong methods as 200.

    Outside of std_daq's routes a wrong method is 405.
    """

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        asked = f"{request.method} {request.url.path}"
        match error.status_code:
            case 404:
                return refusal(f"404 Not Found: there is no {asked}; the routes are listed at /docs.", 404)
            case 405:
                allowed = (error.headers or {}).get("Allow", "another method")
                http_status = 200 if request.url.path.startswith(STD_DAQ_ROUTES) else 405
                return refusal(
                    f"405 Method Not Allowed: {asked} is not possible; use {allowed}.", http_status
                )
            case _:
                return refusal(f"{error.status_code} {error.detail}: {asked}.")


def log_refusal(scope: Scope, message: str) -> None:
    """Log a request that was refused before its route saw it."""
    path = ascii(scope["path"])[1:-1][:MAX_LOGGED_BODY]
    log.warning("%s %s %s -> refused: %s", _client(scope), scope["method"], path, message)


def _client(scope: Scope) -> str:
    return "{}:{}".format(*scope["client"]) if scope["client"] else "unknown client"


def _log_command(request: Request, answer: Envelope) -> None:
    body: bytes = getattr(request.state, "body", b"")
    log.log(
        logging.INFO if answer.reply.status == "ok" else logging.WARNING,
        "%s POST %s %s -> %s: %s",
        _client(request.scope),
        request.url.path,
        repr(body[:MAX_LOGGED_BODY])[2:-1],  # bytes' repr: no control character gets into the log
        answer.reply.status,
        ascii(answer.reason)[1:-1][:MAX_LOGGED_BODY],
    )
