"""Config changes: checked as a whole, shown, and taken up by another receiver where they need one.

What can be known beforehand is checked before a config is accepted (``daq_core.pipeline.runnable``). One that
does not come up all the same gives way to the one that ran before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from daq_core.config import DaqConfig, named, unknown_keys
from daq_core.errors import Busy, DaqError, Unavailable
from daq_core.linux.user import check_right
from daq_core.pipeline.pipeline import Former, Pipeline, close_maps
from daq_core.pipeline.runnable import check_runnable
from daq_core.showing.keeper import Keeper
from daq_core.showing.snapshots import Board
from daq_core.state.acquisition import step
from daq_core.state.events import ConfigAccepted, PipelineReady, ReceiverLost
from daq_core.state.options import DaqOptions
from daq_core.state.status import DaqStatus, Deployment

log = logging.getLogger(__name__)

RUNNING, SUCCESS, ERROR = "RUNNING", "SUCCESS", "ERROR"
BEGUN, DONE = "Deploying on servers...", "Deployment successful"  # std_daq's words
FORMER = "The one before it is in use."

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


class ConfigStore(Protocol):
    """Where configs that ran are kept for the next start."""

    async def prepare(self, config: DaqConfig) -> str:
        """Make room for a config before it is answered for; returns why it cannot be kept, "" when it can."""
        ...

    async def keep_now(self, config: DaqConfig) -> None:
        """Save a config that runs before anybody is told so; waits for a disk for a second at most."""
        ...


class Deployer:
    """Has the DAQ run with the config that was accepted last, or goes back to the one that ran before it.

    It alone sets the snapshot's config, config_id, deployment and `ran`.
    """

    def __init__(
        self,
        board: Board,
        pipeline: Pipeline,
        options: DaqOptions,
        *,
        store: ConfigStore | None,
        keeper: Keeper,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        is_running: Callable[[], bool],
    ) -> None:
        self._board = board
        self._pipeline = pipeline
        self._options = options
        self._store = store
        self._keeper = keeper
        self._spawn = spawn
        self._is_running = is_running  # a run is going on, or its file is being closed
        self._changing = asyncio.Lock()
        self._deploying: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None  # the part of it that may be given up
        self._is_given_up = False
        self._trial: Former | None = None  # to go back to, until the ring of the config in use is filled
        self._n_lost = 0  # receivers of a config on trial

    async def start(self, others: Sequence[DaqConfig]) -> None:
        """Have the first config run; one that cannot gives way to the first of some others that can.

        Raises
        ------
        DaqError
            None of them runs; the text is of the first.
        """
        self._show(RUNNING, BEGUN)
        await self._pipeline.launch()
        try:
            await self._pipeline.start()
        except DaqError as error:
            if not await self._start_other(others, error):
                raise
        self._took_up(self._board.snapshot.config)

    async def _start_other(self, others: Sequence[DaqConfig], error: DaqError) -> bool:
        for config in others:
            log.error("the config does not run: %s; trying another", error)
            try:
                self._options.check(config)
                await self._pipeline.take_up(config, await self._pipeline.load_maps(config))
                await self._pipeline.restart()
            except DaqError as another:
                log.error("nor does the other: %s", another)
                continue
            self._accept(config, RUNNING, BEGUN)
            self._board.config_trouble = f"the config that was set last does not run: {error} {FORMER}"
            return True
        return False

    async def change(self, changes: Mapping[str, object]) -> DaqConfig:
        """Take up a partial change, as ``Daq.configure`` says; the receiver follows in the background."""
        async with self._changing:
            config = await self._change(changes)
        if self._store is not None:
            self._board.unsaved = await self._store.prepare(config)
            self._board.show()
        return config

    async def _change(self, changes: Mapping[str, object]) -> DaqConfig:
        before = self._board.snapshot
        config = before.config.merge(changes)
        if unknown := unknown_keys(changes):
            log.warning("config keys that no config has are ignored: %s", named(unknown))
        self._options.check(config)
        self._refuse()
        changed = _differ(before.config, config)
        if "writer_user_id" in changed:
            check_right(config.writer_user_id, self._options.min_user_id)
        is_needed = bool(changed - RECEIVER_DOES_NOT_CARE) or before.status.receiver_down
        if is_needed:
            await asyncio.to_thread(
                check_runnable,
                config,
                self._options.udp_host,
                own_ports=self._pipeline.layout.udp_ports,
                returned_bytes=self._pipeline.resident_bytes,
            )
        maps = None
        if is_needed or any(getattr(config, name) for name in FILES & set(changes)):
            maps = await self._pipeline.load_maps(config)
            is_needed = is_needed or not await self._pipeline.has_maps(maps)
        try:
            status = self._refuse()  # a run may have begun meanwhile
        except Busy:
            close_maps(maps)
            raise
        if changed:
            self._board.config_trouble = ""
        if is_needed:
            self._accept(config, RUNNING, BEGUN, status=status)
            self._is_given_up = False
            self._deploying = self._spawn(self._deploy(config, maps))
        else:
            close_maps(maps)
            self._accept(config, SUCCESS, DONE, ran=config)
        accepted = self._board.snapshot.config_id
        log.info("config %s accepted, changed: %s", accepted, ", ".join(sorted(changed)) or "-")
        return config

    async def deployed(self) -> None:
        """Wait until the last accepted config is running; Unavailable says why it is not."""
        if self._deploying is not None:
            await asyncio.shield(self._deploying)
        deployment = self._board.snapshot.deployment
        if deployment.status == ERROR:
            raise Unavailable(deployment.message)

    async def settle(self, patience_s: float) -> None:
        """Wait a moment for a config that is being taken up; then give it up for the one before."""
        if self._deploying is None or (await asyncio.wait({self._deploying}, timeout=patience_s))[0]:
            return
        self._is_given_up = True
        if self._starting is not None:
            self._starting.cancel()

    def receiver_lost(self, reason: str) -> None:
        """Go back when a config's receivers die while they fill its ring: the kernel has no memory for it.

        The second time, for one may be killed by anybody.
        """
        self.look()
        if self._trial is None:
            return
        self._n_lost += 1
        if self._n_lost > 1:
            former, self._trial = self._trial, None
            self._deploying = self._spawn(self._go_back(former, f"receiver lost twice: {reason}."))

    def look(self) -> None:
        """End the trial of a config whose ring has its memory; to be called now and then."""
        if self._trial is not None and self._pipeline.is_filled:
            self._end_trial()

    def end(self) -> None:
        """Let go of what is kept to go back to."""
        self._end_trial()

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.forget()
        self._trial, self._n_lost = None, 0

    def _refuse(self) -> DaqStatus:
        """Raise Busy when nothing can be changed now; else return the status that follows a change."""
        if self._deploying is not None and not self._deploying.done():
            raise Busy("Another config change is being applied. Wait until the state is READY.")
        if self._is_running():
            raise Busy("The config cannot be changed while a run is going on. Stop it first.")
        return step(self._keeper.status, ConfigAccepted(), time.time())

    def _accept(self, config: DaqConfig, deployed: str, message: str, **more: Any) -> None:
        """Show an accepted config, and how far its deployment is."""
        now = time.time()
        name = config_id(now, after=self._board.snapshot.config_id)
        deployment = Deployment(name, deployed, message, now, None if deployed == RUNNING else now)
        self._board.show(config=config, config_id=name, deployment=deployment, **more)

    async def _deploy(self, config: DaqConfig, maps: int | None) -> None:
        self._end_trial()
        former = self._pipeline.remember()
        if trouble := await self._try_out(config, maps):
            await self._go_back(former, trouble)
            return
        self._trial = former
        if self._store is not None:  # who saw READY finds this config after a kill, too
            await self._store.keep_now(config)
        self._took_up(config)
        self._keeper.apply(PipelineReady())

    async def _try_out(self, config: DaqConfig, maps: int | None) -> str:
        """Replace the ring and the receiver; returns why that is not possible, "" when it was."""
        try:
            await self._pipeline.take_up(config, maps)
            self._starting = self._spawn(self._pipeline.restart())
            if self._is_given_up:
                self._starting.cancel()
            await asyncio.wait({self._starting})
            if self._starting.cancelled():
                return "stopped before it ran."
            self._starting.result()
        except DaqError as error:
            return str(error)
        except Exception as fault:  # whatever it was: nobody could send another config without a receiver
            log.exception("a config could not be taken up")
            return f"{type(fault).__name__}: {fault}."
        finally:
            self._starting = None
        return ""

    async def _go_back(self, former: Former, trouble: str) -> None:
        """Run again what ran before, and say so."""
        log.error("the new config does not run: %s", trouble)
        while self._is_running():
            await self._board.change()
        self._keeper.apply(ReceiverLost(trouble))
        config, result = former.config, FORMER
        try:
            await self._pipeline.go_back(former)
        except OSError as error:  # Unavailable, or no descriptor left
            result = f"The one before it does not run either: {error}"
        failed = self._board.snapshot.config_id
        name = config_id(time.time(), after=failed)
        self._board.config_trouble = f"the config {failed} does not run: {trouble} {result}"
        self._board.unsaved = ""  # of the config that failed, which nobody wants to keep any more
        self._board.show(config=config, config_id=name, ran=config)
        self._show(ERROR, f"Deployment failed: {trouble} {result}")
        if result == FORMER:
            self._keeper.apply(PipelineReady())

    def _took_up(self, config: DaqConfig) -> None:
        self._show(SUCCESS, DONE)
        self._board.show(ran=config)

    def _show(self, status: str, message: str) -> None:
        """Show how far the deployment is; that of a config which gave way keeps its id."""
        now = time.time()
        before = self._board.snapshot
        deployment = before.deployment
        start = now if deployment.start_time is None else deployment.start_time
        stop = None if status == RUNNING else now
        name = deployment.config_id or before.config_id
        self._board.show(deployment=Deployment(name, status, message, start, stop))


def config_id(now: float, after: str = "0-0") -> str:
    """Name a config as Redis names a stream entry, always later than the one before."""
    milliseconds = max(int(now * 1000), int(after.split("-")[0]) + 1)
    return f"{milliseconds}-0"


def _differ(old: DaqConfig, new: DaqConfig) -> set[str]:
    return {name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)}
