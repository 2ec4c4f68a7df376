"""The REST routes that ``std_daq_client`` 1.3.5 calls, as views of the one door.

Each route reads the request, calls the Daq and renders what it says; there is
no state here. Paths, keys and messages are std_daq's.

Source: std_daq_client 1.3.5, ``client.py``; messages as the original's servers
of the same generation give them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from daq_core.config import named, unknown_keys
from daq_core.control.claim import Asked
from daq_core.errors import Busy, InvalidRequest, RunFailed, Unavailable
from daq_core.state.status import AcquisitionState, DaqStatus, WriteRequest
from rest_bridge import models
from rest_bridge.access import Access, AccessCheck
from rest_bridge.envelope import Envelope, EnvelopedRoute, envelop_other_errors
from rest_bridge.models import ErrorReply, WriterStatus
from rest_bridge.request_body import JsonObject
from rest_bridge.routes_page import routes_page

if TYPE_CHECKING:
    from daq_core.control.door import Door

DESCRIPTION = """\
Start, watch and stop acquisitions, and change the detector config, as `std_daq_client` 1.3.5 does.

Every answer of these routes has HTTP status 200 and says in `status` whether it worked (`ok` or `error`);
`message` is for people. The same state is on EPICS Channel Access and in Redis streams.
"""


def make_app(daq: Door, *, sync_limit_s: float = 60.0, access: Access | None = None) -> FastAPI:
    """Make the REST application of a DAQ.

    Parameters
    ----------
    daq : the door; must be entered before the first request is served
    sync_limit_s : seconds after which `write_sync` answers although the run goes on
    access : who may do what; by default the rules of a service on loopback

    ``app.state.closing`` is an ``asyncio.Event``: setting it ends the calls that wait for a run.
    """
    app = FastAPI(
        title="std_daq", description=DESCRIPTION, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    app.state.daq = daq
    app.state.closing = asyncio.Event()
    app.add_middleware(AccessCheck, access=access or Access())
    app.include_router(_writer_routes(daq, sync_limit_s, app.state.closing))
    app.include_router(_daq_routes(daq))
    envelop_other_errors(app)

    @app.get("/", include_in_schema=False)
    async def show_docs() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def show_routes() -> Response:
        return HTMLResponse(routes_page(app.openapi()))

    return app


async def _asked_for(request: Request) -> Asked:
    """Note when a start was received, before its body is read; a Stop may come meanwhile."""
    daq: Door = request.app.state.daq
    n_stops = daq.n_stops
    return Asked(n_stops, request.state.is_gone) if hasattr(request.state, "is_gone") else Asked(n_stops)


AskedFor = Annotated[Asked, Depends(_asked_for)]


def _writer_routes(daq: Door, sync_limit_s: float, closing: asyncio.Event) -> APIRouter:
    router = APIRouter(prefix="/writer", tags=["writer"], route_class=EnvelopedRoute)

    @router.get("/status", response_model=models.StatusReply | ErrorReply)
    async def get_status() -> Response:
        """Show the state of the DAQ and of its present or last acquisition, and what there is to look at."""
        status, health = daq.snapshot.status, daq.snapshot.health
        return Envelope(
            models.StatusReply(
                message=f"Writer is {status.state.value}" + _config_warning(daq),
                writer=WriterStatus.of(status),
                warning=health.warning,
                waiting=health.waiting,
            )
        )

    @router.post("/write_async", response_model=models.WriterReply | ErrorReply, openapi_extra=_WRITE_BODY)
    async def write_async(asked: AskedFor, body: JsonObject) -> Response:
        """Start a run; answers once the file exists and the writer waits for images."""
        status = await _start(daq, models.write_request(body), asked)
        return _writer("Writing started." + _space_warning(daq), status)

    @router.post("/write_sync", response_model=models.WriterReply | ErrorReply, openapi_extra=_WRITE_BODY)
    async def write_sync(asked: AskedFor, body: JsonObject) -> Response:
        """Start a run; answers once its file is closed, or an error when that takes too long.

        The run goes on when the call ends first: by the limit, or because the client went away.
        """
        await _start(daq, models.write_request(body), asked)
        status = await _end_of_run(daq, sync_limit_s, closing)
        if status.acquisition.state is AcquisitionState.FAILED:
            raise RunFailed(status.acquisition.message)
        return _writer("Writing finished.", status)

    @router.post("/stop", response_model=models.WriterReply | ErrorReply)
    async def stop() -> Response:
        """End the run; what is in memory is still written. Without a run this succeeds and changes nothing.

        A body is not needed and not read.
        """
        return _writer("Writing stopped.", await daq.stop())

    return router


def _daq_routes(daq: Door) -> APIRouter:
    router = APIRouter(prefix="/daq", tags=["daq"], route_class=EnvelopedRoute)

    @router.get("/config", response_model=models.ConfigReply | ErrorReply)
    async def get_config() -> Response:
        """Show the detector config."""
        config = daq.snapshot.config
        return Envelope(
            models.ConfigReply(
                message=f"DAQ configured for bit_depth={config.bit_depth}." + _config_warning(daq),
                config=config.as_dict(),
                config_id=daq.snapshot.config_id,
            )
        )

    @router.post("/config", response_model=models.NewConfigReply | ErrorReply, openapi_extra=_CONFIG_BODY)
    async def set_config(changes: JsonObject) -> Response:
        """Change the detector config: the keys given replace the old ones, `module_positions` as a whole.

        Answers at once; the DAQ is UNKNOWN until the new receiver is up, and then READY: with the config
        before it where the new one did not come up, which `/daq/deployment` tells.
        Refused while a run is going on. Keys that no config has are ignored, and named in the message.
        """
        config = await daq.configure(changes)
        message = "Setting new daq config." + _ignored(changes) + _config_warning(daq)
        return Envelope(models.NewConfigReply(message=message, config=config.as_dict()))

    @router.get("/stats", response_model=models.StatsReply | ErrorReply)
    async def get_stats() -> Response:
        """Show the throughput of detector and writer."""
        return Envelope(
            models.StatsReply(message="DAQ statistics", stats=models.Stats.of(daq.snapshot.stats))
        )

    @router.get("/logs/{n_logs}", response_model=models.LogsReply | ErrorReply, openapi_extra=_N_LOGS)
    async def get_logs(request: Request) -> Response:
        """List the last acquisitions that ended with a file, newest first; none for 0 or less."""
        n = _integer(request.path_params["n_logs"])
        return Envelope(
            models.LogsReply(message="DAQ logs", logs=models.finished(daq.snapshot.log)[: max(n, 0)])
        )

    @router.get("/runs/{n_logs}", response_model=models.RunsReply | ErrorReply, openapi_extra=_N_LOGS)
    async def get_runs(request: Request) -> Response:
        """List the last acquisitions that ended, newest first, FAILED ones too; none for 0 or less."""
        n = max(_integer(request.path_params["n_logs"]), 0)
        return Envelope(models.RunsReply(message="DAQ runs", runs=models.ended(daq.snapshot.log[:n])))

    @router.get("/deployment", response_model=models.DeploymentReply | ErrorReply)
    async def get_deployment() -> Response:
        """Show how the last config change went."""
        deployment = models.Deployment.of(daq.snapshot.deployment)
        return Envelope(models.DeploymentReply(message="Deployment status", deployment=deployment))

    return router


async def _start(daq: Door, request: WriteRequest, asked: Asked) -> DaqStatus:
    try:
        return await daq.start(request, asked)
    except Busy as busy:
        status = WriterStatus.of(daq.snapshot.status).model_dump()
        # std_daq's text, which its clients know; the command line and the log say it in other words
        raise Busy(f"Cannot start new acquisition while previous one is running:\n {status}") from busy


async def _end_of_run(daq: Door, limit_s: float, closing: asyncio.Event) -> DaqStatus:
    """Wait until the run has ended; Unavailable when it takes too long or the service closes."""
    run, close = asyncio.ensure_future(daq.wait()), asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait({run, close}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if run.done():
            return run.result()
    finally:
        run.cancel()
        close.cancel()
    if closing.is_set():
        raise Unavailable("The service is stopping and closes the file of your acquisition.")
    raise Unavailable(
        "Your acquisition is still running, just the REST call has ended. Sync acquisition limit of "
        f"{limit_s:g} seconds exceeded. Use async write call for long acquisitions."
    )


def _space_warning(daq: Door) -> str:
    low = daq.snapshot.health.low_space
    return f" Warning: {low}." if low else ""


def _config_warning(daq: Door) -> str:
    """Say that the config in use is not the wanted one, or that it is not kept for the next start."""
    warning = daq.snapshot.health.config
    return f" Warning: {warning}" if warning else ""


def _ignored(changes: Mapping[str, object]) -> str:
    unknown = unknown_keys(changes)
    return f" Warning: keys that no config has are ignored: {named(unknown)}." if unknown else ""


def _writer(message: str, status: DaqStatus) -> Envelope:
    return Envelope(models.WriterReply(message=message, writer=WriterStatus.of(status)))


def _integer(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise InvalidRequest(f"Invalid number of logs {text[:80]!r}. Must be an integer.") from None


# What the routes parse themselves, for the OpenAPI page: FastAPI's own parsing would answer errors with 422.


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_WRITE_BODY = _body(models.WriteBody.model_json_schema())
_CONFIG_BODY = _body(models.config_changes_schema())
_N_LOGS = {
    "parameters": [
        {
            "name": "n_logs",
            "in": "path",
            "required": True,
            "schema": {"type": "integer"},
            "description": "How many at most.",
        }
    ]
}
