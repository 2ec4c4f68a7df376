"""The one door: start, wait, stop, configure.

Every face (Channel Access, REST, later ones) rings here and shows the snapshots
that come back; none keeps a state of its own. A command's journey::

    start(request)  -> a writer is forked, becomes the user, looks at the path
                    -> StartRequested -> it opens the file -> FileOpened, ring armed
    receiver        -> images in the ring -> counters move -> ImageAcquired, ImagesWritten …
    writer closes   -> FileClosed -> the acquisition goes to the log -> wait() returns

Everything here runs in one asyncio loop, and nothing in it blocks. A task that
awaits a command may be cancelled; the command goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from daq_core.acquisition import (
    AllAcquired,
    ConfigAccepted,
    Event,
    FileClosed,
    FileOpened,
    ImageAcquired,
    ImagesWritten,
    OpenFailed,
    PipelineReady,
    ReceiverLost,
    StartRequested,
    StopRequested,
    WriteFailed,
    WriterLost,
    step,
)
from daq_core.config import DaqConfig, unknown_keys
from daq_core.counts import Meter, read_counters, read_losses
from daq_core.errors import Busy, DaqError, RunFailed, Unavailable
from daq_core.journal import Journal
from daq_core.pipeline import Pipeline
from daq_core.ring import Word
from daq_core.run import Run, WriterLostError
from daq_core.status import (
    AcquisitionState,
    DaqState,
    DaqStatus,
    Deployment,
    Snapshot,
    WriteRequest,
)
from daq_core.writer import WriterTask

log = logging.getLogger(__name__)

SOFTWARE = "std-daq-ioc " + importlib.metadata.version("std-daq-ioc")

TICK_S = 0.02  # how often the counters are looked at during a run
HEARTBEAT_S = 1.0
DRAIN_S = 3.0  # after a stop, for the images in memory to reach the disk
HURRY_S = 1.0  # after that, for the writer to close its file without the rest
READY_S = 4.5  # for Stop to find a receiver that is down up again

# A change of these keys alone needs no other receiver.
RECEIVER_DOES_NOT_CARE = {"writer_user_id", "submodule_info", "log_level", "stats_collection_period"}

Result = TypeVar("Result")
Listener = Callable[[Snapshot], None]


@dataclass(frozen=True)
class DaqOptions:
    """What the service was started with, besides the detector config."""

    udp_host: str = "0.0.0.0"
    id_source: Literal["frame", "bunch", "bunch-int"] = "frame"
    output_roots: tuple[str, ...] = ("/",)
    state_dir: Path | None = None  # where the journal lives; None: nothing is kept
    overwrite: bool = False
    writer_group: int | None = None
    min_user_id: int = 1


class Daq:
    """A running DAQ::

        async with Daq(DaqConfig.load("detector.json")) as daq:
            await daq.start(WriteRequest.checked("/data/run1.h5", 100))
            status = await daq.wait()
    """

    def __init__(self, config: DaqConfig, options: DaqOptions = DaqOptions()) -> None:
        self.options = options
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._run: Run | None = None
        self._ended: asyncio.Event = asyncio.Event()
        self._changed = asyncio.Event()
        self._status_at_end = DaqStatus()
        self._deploying: asyncio.Task[None] | None = None
        self._meter = Meter()
        self._journal = Journal(options.state_dir)
        self._pipeline = Pipeline(
            config,
            udp_host=options.udp_host,
            id_source=options.id_source,
            receiver_lost=self._on_receiver_lost,
            receiver_up=self._on_receiver_up,
        )
        now = time.time()
        self.snapshot = Snapshot(
            time=now,
            config=config,
            config_id=_config_id(now),
            log=self._journal.newest_first(),
            log_total=self._journal.total,
        )
        self._ended.set()

    async def __aenter__(self) -> Self:
        self._deployment("RUNNING", "Deploying on servers...")
        await self._pipeline.start()
        self._deployment("SUCCESS", "Deployment successful")
        self._step(PipelineReady())
        self._spawn(self._beat())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close a running file first, then end the processes."""
        with contextlib.suppress(DaqError, TimeoutError):
            await self.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pipeline.end()
        await self._journal.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every snapshot from now on; returns what ends that.

        It is called in the loop, must not block and must not raise.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ---------------------------------------------------------------- commands

    async def start(self, request: WriteRequest) -> DaqStatus:
        """Begin a run; returns when its file exists and the writer waits for images.

        Raises
        ------
        InvalidRequest  it cannot be written there; nothing changed
        Busy            a run is going on, or the DAQ is not ready; nothing changed
        RunFailed       the file could not be created; the status says FAILED
        Unavailable     no writer could be started; nothing changed
        """
        return await asyncio.shield(self._spawn(self._start(request)))

    async def wait(self) -> DaqStatus:
        """Wait for the end of the run that is going on, if any; returns the status at that moment."""
        while self.snapshot.status.pending is not None or self.snapshot.status.acquisition.running:
            ended = self._ended
            await ended.wait()
            return self._status_at_end
        return self.snapshot.status

    async def stop(self) -> DaqStatus:
        """End the run, if one is going on: images in memory are written, the file is closed.

        Legal in every state; returns when READY, within five seconds.

        Raises
        ------
        Unavailable  the receiver is down and does not come up; the text says why
        """
        return await asyncio.shield(self._spawn(self._stop()))

    async def configure(self, changes: Mapping[str, object]) -> DaqConfig:
        """Take up a partial config change; returns the whole config at once.

        The receiver is replaced in the background: UNKNOWN, then READY (see :meth:`reconfigured`).

        Raises
        ------
        InvalidConfig  the result cannot be; nothing changed
        Busy           a run or another change is going on; nothing changed
        """
        config = self.snapshot.config.merge(changes)
        if unknown := unknown_keys(changes):
            log.warning("config keys that nobody knows are ignored: %s", ", ".join(unknown))
        if self._deploying is not None and not self._deploying.done():
            raise Busy("Another config change is being applied. Wait until the state is READY.")
        status = step(self.snapshot.status, ConfigAccepted(), time.time())
        now = time.time()
        old, config_id = self.snapshot.config, _config_id(now, after=self.snapshot.config_id)
        restart = _differ(old, config) - RECEIVER_DOES_NOT_CARE
        if restart:
            deployment = Deployment(config_id, "RUNNING", "Deploying on servers...", now)
            self._show(status=status, config=config, config_id=config_id, deployment=deployment)
            self._deploying = self._spawn(self._deploy(config))
        else:
            deployment = Deployment(config_id, "SUCCESS", "Deployment successful", now, now)
            self._show(config=config, config_id=config_id, deployment=deployment)
        log.info("config %s accepted, changed: %s", config_id, ", ".join(sorted(_differ(old, config))) or "nothing")
        return config

    async def reconfigured(self) -> None:
        """Wait until the last accepted config is running; Unavailable says why it is not."""
        if self._deploying is not None:
            await asyncio.shield(self._deploying)
        if self.snapshot.deployment.status == "ERROR":
            raise Unavailable(self.snapshot.deployment.message)

    # ------------------------------------------------------------------- a run

    async def _start(self, request: WriteRequest) -> DaqStatus:
        step(self.snapshot.status, StartRequested(request), time.time())  # refuse at once what is refused
        run = Run(self._task_for(request))
        await run.connect(await self._pipeline.open_channel())
        checked = await run.check()
        try:
            self._step(StartRequested(request))
        except Busy:  # another start won while the writer looked at the path
            run.close()
            raise
        if checked["warning"]:
            log.warning("run into %s: %s", request.output_file, checked["warning"])
        self._set_warning(checked["warning"])
        self._run, self._ended = run, asyncio.Event()
        self._meter.begin_run()
        follow = self._spawn(self._follow(run, request))
        opened = self._spawn(self._until_opened(request))
        await asyncio.wait({follow, opened}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        status = self.snapshot.status
        if follow.done() and self._status_at_end.acquisition.state is AcquisitionState.FAILED:
            raise RunFailed(self._status_at_end.acquisition.message)
        return self._status_at_end if follow.done() else status

    async def _until_opened(self, request: WriteRequest) -> None:
        while self.snapshot.status.pending is request:
            await self._next_change()

    async def _follow(self, run: Run, request: WriteRequest) -> None:
        """Turn what the writer says and the counters show into events, until the run has ended."""
        try:
            run.tell(open={"start_time": self.snapshot.status.pending_since, "epoch": self._pipeline.next_epoch})
            heard = asyncio.ensure_future(run.hear())
            while True:
                await asyncio.wait({heard}, timeout=TICK_S)
                if not heard.done():
                    self._fold_counters()
                    continue
                message = heard.result()
                if "opened" in message:
                    self._on_opened(request)
                    heard = asyncio.ensure_future(run.hear())
                    continue
                self._on_end(message)
                return
        except WriterLostError as error:
            self._fold_counters()
            self._pipeline.release()
            self._step(WriterLost(str(error)))
            await self._mend(run)
        finally:
            run.close()
            self._pipeline.release()
            self._run = None
            self._ended.set()

    def _on_opened(self, request: WriteRequest) -> None:
        """Arm the ring and show WAITING_IMAGES in one go: an image that follows belongs to the run."""
        if self.snapshot.status.state is DaqState.UNKNOWN:
            return  # the receiver was lost meanwhile; the writer has been told
        self._pipeline.arm(request.n_images)
        self._step(FileOpened())
        if self.snapshot.status.stopping:
            self._pipeline.disarm()

    def _on_end(self, message: dict[str, Any]) -> None:
        self._fold_counters(everything=True)
        self._pipeline.release()
        opened = self.snapshot.status.pending is None
        if "closed" in message:
            self._step(FileClosed(message["closed"]["n_completed"]))
        elif opened:
            self._step(WriteFailed(message["failed"]["reason"], message["failed"]["n_completed"]))
        else:
            self._step(OpenFailed(message["failed"]["reason"]))

    def _fold_counters(self, everything: bool = False) -> None:
        """Make events of what receiver and writer counted since the last look."""
        status = self.snapshot.status
        words = self._pipeline.words
        if status.state is not DaqState.WRITING or status.pending is not None:
            return
        if words[Word.RUN_EPOCH] != words[Word.EPOCH] - (words[Word.EPOCH] + 1) % 2:
            return  # the receiver has not begun the run yet
        n_requested, n_completed = int(words[Word.RUN_KEPT]), int(words[Word.COMPLETED])
        acquisition = status.acquisition
        n_images = acquisition.request.n_images if acquisition.request is not None else 0
        if n_requested > 0 and acquisition.state is AcquisitionState.WAITING_IMAGES:
            self._step(ImageAcquired())
            acquisition = self.snapshot.status.acquisition
        all_acquired = n_images > 0 and n_requested >= n_images
        if everything and n_completed > 0 and acquisition.n_write_completed == 0 and n_requested > 1:
            # The run was over between two looks: show the state it passed through all the same.
            self._step(ImagesWritten(n_requested, min(n_completed, n_requested - 1)))
        if all_acquired and acquisition.state is not AcquisitionState.FLUSHING_IMAGES:
            self._step(AllAcquired())
            acquisition = self.snapshot.status.acquisition
        if (n_requested, n_completed) != (acquisition.n_write_requested, acquisition.n_write_completed):
            self._step(ImagesWritten(n_requested, n_completed))

    async def _stop(self) -> DaqStatus:
        before = self.snapshot.status
        run = self._run
        if before.state is not DaqState.READY or run is not None:
            self._step(StopRequested())
        if run is not None:
            if self.snapshot.status.pending is None:
                self._pipeline.disarm()
            await self._wind_up(run)
        deadline = time.monotonic() + READY_S
        while self.snapshot.status.state is not DaqState.READY:
            if self.snapshot.status.state is DaqState.UNKNOWN and not self.snapshot.status.receiver_down:
                self._step(StopRequested())
                continue
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._next_change()
            except TimeoutError:
                raise Unavailable(f"Stopped, but not READY: {self.snapshot.status.reason}.") from None
        return self.snapshot.status

    async def _wind_up(self, run: Run) -> None:
        """Wait for a stopped run's file; a writer that cannot keep up is hurried, then killed."""
        for patience, act in (
            (DRAIN_S, lambda: run.tell(hurry="stop")),
            (HURRY_S, run.kill),
        ):
            try:
                async with asyncio.timeout(patience):
                    await self._ended.wait()
                return
            except TimeoutError:
                log.warning("the writer of %s takes long to end", run.task.output_file)
                act()
        await self._ended.wait()

    async def _mend(self, run: Run) -> None:
        """Make the file of a lost writer readable again, then be ready."""
        try:
            mender = Run(replace(run.task, repair=True))
            await mender.connect(await self._pipeline.open_channel())
            async with asyncio.timeout(HURRY_S):
                while "pid" in (said := await mender.hear()):
                    pass
            log.warning("after the loss of its writer: %s", said)
            mender.close()
        except (DaqError, WriterLostError, TimeoutError) as error:
            log.error("%s could not be repaired: %s", run.task.output_file, error)
        if not self.snapshot.status.receiver_down:
            self._step(PipelineReady())

    def _task_for(self, request: WriteRequest) -> WriterTask:
        config, layout, shape = self.snapshot.config, self._pipeline.layout, self._pipeline.shape
        return WriterTask(
            **asdict(request),
            image_shape=layout.image_shape,
            dtype=layout.dtype.str,
            detector_name=config.detector_name,
            detector_type=config.detector_type,
            bit_depth=config.bit_depth,
            config_json=config.as_json(),
            software=SOFTWARE,
            n_slots=shape.n_slots,
            n_modules=shape.n_modules,
            n_units=shape.n_units,
            writer_user_id=config.writer_user_id,
            writer_group=self.options.writer_group,
            min_user_id=self.options.min_user_id,
            output_roots=self.options.output_roots,
            overwrite=self.options.overwrite,
        )

    # ------------------------------------------------------------ the pipeline

    async def _deploy(self, config: DaqConfig) -> None:
        try:
            await self._pipeline.change(config)
        except DaqError as error:
            log.error("the new config does not run: %s", error)
            self._deployment("ERROR", f"Deployment failed: {error}")
            self._step(ReceiverLost(str(error)))
        else:
            self._deployment("SUCCESS", "Deployment successful")
            self._step(PipelineReady())

    def _on_receiver_lost(self, reason: str) -> None:
        self._step(ReceiverLost(reason))
        if self._run is not None:
            self._pipeline.disarm()
            self._run.tell(abort=f"receiver lost: {reason}")

    def _on_receiver_up(self) -> None:
        self._spawn(self._recover())

    async def _recover(self) -> None:
        """Be ready again, once the file of a failed run is closed."""
        await self._ended.wait()
        if self.snapshot.deployment.status == "ERROR":
            self._deployment("SUCCESS", "Deployment successful")
        self._step(PipelineReady())

    # ------------------------------------------------------------ the snapshot

    async def _beat(self) -> None:
        """Refresh rates and counters once a second, whether or not anything happens."""
        due = time.monotonic()
        while True:
            due = max(due + HEARTBEAT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._show(stats=self._meter.rates(self._pipeline, time.monotonic()))

    def _step(self, event: Event) -> None:
        """Apply an event; an acquisition that ended goes to the log."""
        before = self.snapshot.status
        status = step(before, event, time.time())
        ended = (before.acquisition.running or before.pending is not None) and not (
            status.acquisition.running or status.pending is not None
        )
        if not ended:
            if status != before:
                self._show(status=status)
            return
        self._status_at_end = status
        self._journal.add(status.acquisition)
        self._show(status=status, log=self._journal.newest_first(), log_total=self._journal.total)
        acquisition = status.acquisition
        log.info(
            "run into %s: %s %s, %d images",
            acquisition.request.output_file if acquisition.request else "?",
            acquisition.state,
            acquisition.message,
            acquisition.n_write_completed,
        )

    def _deployment(self, status: str, message: str) -> None:
        now = time.time()
        before = self.snapshot.deployment
        start = now if before.start_time is None else before.start_time
        stop = None if status == "RUNNING" else now
        config_id = self.snapshot.config_id
        self._show(deployment=Deployment(config_id, status, message, start, stop))

    def _set_warning(self, warning: str) -> None:
        self._show(health=replace(self.snapshot.health, warning=warning))

    def _show(self, **changes: Any) -> None:
        """Replace the snapshot and tell everybody."""
        words = self._pipeline.words
        status: DaqStatus = changes.get("status", self.snapshot.status)
        health = changes.pop("health", self.snapshot.health)
        self.snapshot = replace(
            self.snapshot,
            time=time.time(),
            losses=read_losses(self._pipeline),
            counters=read_counters(self._pipeline),
            health=replace(
                health,
                receiver_up=not status.receiver_down,
                restarts=self._pipeline.n_restarts,
                disk_free_bytes=int(words[Word.DISK_FREE]) or None,
            ),
            **changes,
        )
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in list(self._listeners):
            try:
                listener(self.snapshot)
            except Exception:
                log.exception("a listener of snapshots failed")

    async def _next_change(self) -> None:
        await self._changed.wait()

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run something that must not end with the task that asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _differ(old: DaqConfig, new: DaqConfig) -> set[str]:
    return {name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)}


def _config_id(now: float, after: str = "0-0") -> str:
    """Name a config as Redis names a stream entry, always later than the one before."""
    milliseconds = max(int(now * 1000), int(after.split("-")[0]) + 1)
    return f"{milliseconds}-0"
