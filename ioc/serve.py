"""The composition root: config → Daq → its faces → READY → an ordered end.

This is the one place that knows Channel Access, REST and Redis at once. The
faces start when the DAQ has started, and end after it closed a running file,
so that every client can see how the run ended. A face that dies ends the
service in order, with exit code 1: a service manager starts it again. So it does
after IOC:SYSRESET, which ends the service with exit code 75.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from daq_core.control.door import Door
from daq_core.errors import DaqError, Unavailable
from daq_core.linux.network import is_loopback
from daq_core.pipeline.runnable import check_runnable
from daq_core.processes.forks import ForkServer
from daq_core.state.options import DaqOptions
from daq_core.state.status import DaqState
from daq_core.token_file import read_token
from ioc.access.control import AccessControl
from ioc.channel_access.namesakes import warn_of_namesakes
from ioc.pvs.daq import PVS
from ioc.pvs.view import StdDaqJson
from ioc.service.autosave import Autosave
from ioc.service.ending import Ending
from ioc.service.ioc import Ioc
from ioc.service.log_output import Errors, LogLevel, log_to_stderr
from ioc.service.notify import ServiceManager
from ioc.service.options import FaceOptions, ServeOptions
from ioc.service.precedence import take_precedence
from ioc.service.saved_config import SavedConfig
from ioc.service.state_dir import held_state_dir
from ioc.values.operator import FaceHealth
from rest_bridge import models
from rest_bridge.access import Access
from rest_bridge.app import make_app
from rest_bridge.server import RestServer

if TYPE_CHECKING:
    from rest_bridge.redis_streams import RedisPublisher

log = logging.getLogger(__name__)

LONGER_S = 120  # that a service manager waits after each word of a start that takes long
FREED_WITHIN_S = 3.0  # what a killed service had
RESTART = 75  # exit code that asks for a new start, EX_TEMPFAIL of sysexits.h

STD_DAQ_JSON = StdDaqJson(
    status=lambda status: models.WriterStatus.of(status).model_dump(),
    stats=lambda stats: models.Stats.of(stats).model_dump(),
    acquisition=lambda run: models.LogEntry.of(run).model_dump(),
    deployment=lambda deployment: models.Deployment.of(deployment).model_dump(),
)


def rest_access(faces: FaceOptions) -> Access:
    """Return who may do what by REST; reads the token, and may ask the name service for our name."""
    names = {socket.gethostname()} if is_loopback(faces.bind) else {socket.gethostname(), socket.getfqdn()}
    return Access(
        bind=faces.bind,
        token=None if faces.token_file is None else read_token(faces.token_file),
        trusted_networks=faces.trusted,
        host_names=frozenset(name.lower() for name in names | faces.host_names),
    )


class RestartAsked(Exception):
    """A client asked by SYSRESET that the service be ended and started again."""


async def serve(
    daq: Daq,
    options: ServeOptions,
    saved: SavedConfig,
    autosave: Autosave,
    errors: Errors,
    announce: Callable[[str], None],
    manager: ServiceManager,
) -> None:
    """Run the DAQ and its faces until cancelled; then close a running file before the faces end.

    Raises
    ------
    DaqError
        A face or the DAQ could not start; or a face died, after the running file was closed.
    RestartAsked
        A client wants it to be started again.
    """
    restart = asyncio.Event()
    app = make_app(daq, sync_limit_s=options.service.sync_limit, access=rest_access(options.faces))
    rest = RestServer(app, options.faces.bind, options.faces.rest_port)
    ca_access = AccessControl(options.service.acf)
    alone = asyncio.create_task(
        warn_of_namesakes(PVS[0].pv(options.prefix), options.faces.bind, options.faces.ca_port)
    )
    async with _redis(daq, options) as publisher, daq:
        await alone  # before ours can be found
        ioc = Ioc(
            daq,
            options.prefix,
            bind=options.faces.bind,
            ca_port=options.faces.ca_port,
            health=lambda: _health(publisher),
            std_daq=STD_DAQ_JSON,
            aliases=options.aliases,
            autosave=autosave,
            engineer=options.service.engineer,
            location=options.service.location,
            errors=errors,
            end=restart.set,
            access=ca_access,
        )
        ca_started = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as faces:
                faces.create_task(_for_ever("Channel Access", ioc.run(ca_started)))
                faces.create_task(_for_ever("REST", rest.run()))
                if publisher is not None:
                    faces.create_task(_for_ever("Redis", publisher.run()))
                faces.create_task(saved.keep(daq))
                await ca_started.wait()
                await rest.started.wait()
                take_precedence()
                gc.freeze()  # what is loaded stays: looking for garbage in it would hold us up for 0.1 s
                gc.enable()
                announce(ready_line(daq, options))
                manager.tell(READY=1)
                faces.create_task(manager.keep_informed(lambda: _status_line(daq)))
                try:
                    await restart.wait()
                    raise RestartAsked
                finally:
                    manager.tell(STOPPING=1)
                    await _close_run(daq)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


@asynccontextmanager
async def _redis(daq: Door, options: ServeOptions) -> AsyncIterator[RedisPublisher | None]:
    """Give what publishes to somebody's server, or to one of our own; None without Redis."""
    if options.faces.redis_url is None and options.faces.own_redis_port is None:
        yield None
        return
    # The client takes a tenth of the time that the service takes to load.
    from rest_bridge.redis_server import EmbeddedRedis
    from rest_bridge.redis_streams import RedisPublisher

    if options.faces.redis_url is not None:
        yield RedisPublisher(daq, options.faces.redis_url)
    elif options.faces.own_redis_port is not None:
        async with EmbeddedRedis(options.faces.bind, options.faces.own_redis_port) as server:
            yield RedisPublisher(daq, server.url, server.renew)


def _health(publisher: RedisPublisher | None) -> FaceHealth:
    if publisher is None:
        return FaceHealth()
    return FaceHealth(publisher.connected, publisher.latency_s, publisher.trouble, publisher.dropped)


def _status_line(daq: Door) -> str:
    """Say in one line how the DAQ stands, for ``systemctl status``."""
    status = daq.snapshot.status
    run = status.acquisition
    text = f"{status.state.value}: {status.reason}" if status.reason else status.state.value
    if run.request is None:
        return text
    return f"{text}; {run.request.output_file}: {run.message or run.state.value}"


async def _for_ever(name: str, serving: Awaitable[None]) -> None:
    await serving
    raise Unavailable(f"{name} ended by itself.")


async def _close_run(daq: Door) -> None:
    """Close a running file while the faces can still show how that went."""
    if daq.snapshot.status.state is DaqState.WRITING:
        log.info("ending: the running file is closed first")
    try:
        await daq.stop()
    except DaqError as error:
        log.error("ending: %s", error)


def ready_line(daq: Door, options: ServeOptions) -> str:
    """Say where each face answers, on one line; no password of a Redis URL is in it."""
    redis = "none"
    if options.faces.redis_url is not None:
        redis = options.faces.redis_url.rpartition("@")[2].removeprefix("redis://").partition("?")[0]
    elif options.faces.own_redis_port is not None:
        redis = f"{options.faces.bind}:{options.faces.own_redis_port}"
    config = daq.snapshot.config
    ports = config.layout.udp_ports
    images = ", ".join(config.stream_addresses)
    if ports:
        images = f"UDP {options.receive.udp_host}:{min(ports)}..{max(ports)}"
    return (
        f"READY REST http://{options.faces.bind}:{options.faces.rest_port}, "
        f"CA {options.prefix} at {options.faces.bind}:{options.faces.ca_port}, "
        f"Redis {redis}, {images}"
    )


def tell_of_start(manager: ServiceManager, how_far: str) -> None:
    """Say how far a start is that takes long; a service manager is to wait for it so much longer."""
    log.info("%s", how_far)
    manager.tell(STATUS=how_far, EXTEND_TIMEOUT_USEC=int(LONGER_S * 1e6))


def _print_now(line: str) -> None:
    print(line, flush=True)


def _patient_check(options: DaqOptions) -> Callable[[DaqConfig], None]:
    """Return what refuses a config that cannot run, once it is certain.

    A service that was killed a moment ago may be about to give its ports and memory back.
    """
    deadline = time.monotonic() + FREED_WITHIN_S

    def check(config: DaqConfig) -> None:
        options.check(config)
        while True:
            try:
                return check_runnable(config, options.udp_host)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    return check


def run(
    options: ServeOptions,
    level: LogLevel,
    forks: ForkServer | None = None,
    announce: Callable[[str], None] = _print_now,
) -> int:
    """Serve until a signal ends it; return the exit code: 0, or 75 (RESTART) when a client asked for that.

    ``forks`` may have been launched already; without it, one is started.

    Raises
    ------
    DaqError
        Something needed is missing, taken or wrong: the text is for the user.
    """
    log_to_stderr(level)
    ending = Ending()
    manager = ServiceManager()
    forks = forks or ForkServer()
    forks.tell = lambda how_far: tell_of_start(manager, how_far)
    with held_state_dir(options.state_dir):
        saved = SavedConfig(options.config, options.state_dir)
        config, *others = saved.choose(
            fresh=options.service.fresh, check=_patient_check(options.daq_options())
        )
        autosave = Autosave(options.state_dir, fresh=options.service.fresh)
        daq = Daq(config, options.daq_options(), forks, others=others, store=saved)
        if saved.trouble:
            daq.warn_of_config(saved.trouble)
        errors = Errors()
        try:
            with errors.of_the_log():
                asyncio.run(ending.run(serve(daq, options, saved, autosave, errors, announce, manager)))
                return 0
        except RestartAsked:
            return RESTART
        except DaqError:
            raise
        except Exception:
            log.critical("ended by an error of ours", exc_info=True)
            return 1
