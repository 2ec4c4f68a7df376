"""Config changes: checked as a whole, shown, and taken up by another receiver where they need one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from daq_core.acquisition import step
from daq_core.board import Board
from daq_core.config import DaqConfig, named, unknown_keys
from daq_core.errors import Busy, DaqError, Unavailable
from daq_core.events import ConfigAccepted, Event, PipelineReady, ReceiverLost
from daq_core.options import DaqOptions
from daq_core.pipeline import Pipeline, close_maps
from daq_core.status import DaqStatus, Deployment

log = logging.getLogger(__name__)

RUNNING, SUCCESS, ERROR = "RUNNING", "SUCCESS", "ERROR"
BEGUN, DONE = "Deploying on servers...", "Deployment successful"  # std_daq's words

# A change of these keys alone needs no other receiver.
RECEIVER_DOES_NOT_CARE = {
    "writer_user_id",
    "submodule_info",
    "log_level",
    "stats_collection_period",
    "compression",
    "compression_threads",
    "number_of_writers",
}
# These name files, which may have changed though the name has not: one that is named is read and compared.
FILES = {"gain_file", "pedestal_file"}


class Deployer:
    """Has the DAQ run with the config that was accepted last, and shows how far that is.

    It alone sets the snapshot's config, config_id and deployment.
    """

    def __init__(
        self,
        board: Board,
        pipeline: Pipeline,
        options: DaqOptions,
        *,
        apply: Callable[[Event], DaqStatus],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        is_running: Callable[[], bool],
    ) -> None:
        self._board = board
        self._pipeline = pipeline
        self._options = options
        self._apply = apply
        self._spawn = spawn
        self._is_running = is_running  # a run is going on, or its file is being closed
        self._changing = asyncio.Lock()
        self._deploying: asyncio.Task[None] | None = None

    async def change(self, changes: Mapping[str, object]) -> DaqConfig:
        """Take up a partial change, as ``Daq.configure`` says; the receiver follows in the background."""
        async with self._changing:
            before = self._board.snapshot
            config = before.config.merge(changes)
            if unknown := unknown_keys(changes):
                log.warning("config keys that no config has are ignored: %s", named(unknown))
            self._options.check(config)
            self._refuse()
            changed = _differ(before.config, config)
            is_needed = bool(changed - RECEIVER_DOES_NOT_CARE) or before.status.receiver_down
            maps = None
            if is_needed or any(getattr(config, name) for name in FILES & set(changes)):
                maps = await self._pipeline.load_maps(config)
                is_needed = is_needed or not await self._pipeline.has_maps(maps)
            if not is_needed:
                close_maps(maps)
                self._refuse()  # a run may have begun meanwhile
                self._accept(config, SUCCESS, DONE)
            else:
                try:
                    status = self._refuse()  # a run may have begun meanwhile
                except Busy:
                    close_maps(maps)
                    raise
                self._accept(config, RUNNING, BEGUN, status=status)
                self._deploying = self._spawn(self._deploy(config, maps))
        accepted = self._board.snapshot.config_id
        log.info("config %s accepted, changed: %s", accepted, ", ".join(sorted(changed)) or "-")
        return config

    async def deployed(self) -> None:
        """Wait until the last accepted config is running; Unavailable says why it is not."""
        if self._deploying is not None:
            await asyncio.shield(self._deploying)
        if self.has_failed:
            raise Unavailable(self._board.snapshot.deployment.message)

    @property
    def has_failed(self) -> bool:
        return self._board.snapshot.deployment.status == ERROR

    def show_begun(self) -> None:
        self._show(RUNNING, BEGUN)

    def show_done(self) -> None:
        self._show(SUCCESS, DONE)

    def _refuse(self) -> DaqStatus:
        """Raise Busy when nothing can be changed now; else return the status that follows a change."""
        if self._deploying is not None and not self._deploying.done():
            raise Busy("Another config change is being applied. Wait until the state is READY.")
        if self._is_running():
            raise Busy("The config cannot be changed while a run is going on. Stop it first.")
        return step(self._board.snapshot.status, ConfigAccepted(), time.time())

    def _accept(self, config: DaqConfig, deployed: str, message: str, **more: Any) -> None:
        """Show an accepted config, and how far its deployment is."""
        now = time.time()
        name = config_id(now, after=self._board.snapshot.config_id)
        deployment = Deployment(name, deployed, message, now, None if deployed == RUNNING else now)
        self._board.show(config=config, config_id=name, deployment=deployment, **more)

    async def _deploy(self, config: DaqConfig, maps: int | None) -> None:
        try:
            await self._pipeline.change(config, maps)
        except DaqError as error:
            log.error("the new config does not run: %s", error)
            self._show(ERROR, f"Deployment failed: {error}")
            self._apply(ReceiverLost(str(error)))
        else:
            self.show_done()
            self._apply(PipelineReady())

    def _show(self, status: str, message: str) -> None:
        now = time.time()
        before = self._board.snapshot
        start = now if before.deployment.start_time is None else before.deployment.start_time
        stop = None if status == RUNNING else now
        self._board.show(deployment=Deployment(before.config_id, status, message, start, stop))


def config_id(now: float, after: str = "0-0") -> str:
    """Name a config as Redis names a stream entry, always later than the one before."""
    milliseconds = max(int(now * 1000), int(after.split("-")[0]) + 1)
    return f"{milliseconds}-0"


def _differ(old: DaqConfig, new: DaqConfig) -> set[str]:
    return {name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)}
