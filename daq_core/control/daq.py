"""The one door: start, wait, stop, configure.

Every face (Channel Access, REST, later ones) rings here and shows the snapshots
that come back; none keeps a state of its own. A command's journey::

    start(request)  -> the next run is claimed: other starts are refused from here on
                    -> a writer is forked, becomes the user, looks at the path
                    -> StartRequested -> it opens the file -> FileOpened, ring armed
    receiver        -> images in the ring -> counters move -> ImageAcquired, ImagesWritten …
    writer closes   -> FileClosed -> the acquisition goes to the log -> wait() returns

Everything here runs in one asyncio loop, and nothing in it blocks. A task that
awaits a command may be cancelled; the command goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from daq_core.config import DaqConfig
from daq_core.control.claim import STOPPED, Asked, Claim
from daq_core.control.counters import Meter, read_counters
from daq_core.control.deployment import ConfigStore, Deployer, config_id
from daq_core.control.folder import look
from daq_core.control.free_space import FreeSpace
from daq_core.control.interrupted import end_of
from daq_core.control.journal import Begun, Journal
from daq_core.control.pipeline import Pipeline
from daq_core.control.run import Run, task_of
from daq_core.control.snapshots import Board, Listener
from daq_core.control.task import FolderTask
from daq_core.control.valve import Valve
from daq_core.errors import Busy, DaqError, RunFailed, Stopped, Unavailable
from daq_core.processes.forks import ForkServer
from daq_core.ring.ring import Ring
from daq_core.state.acquisition import step
from daq_core.state.events import (
    Event,
    FileOpened,
    PipelineReady,
    ReceiverLost,
    StartRequested,
    StopRequested,
    WriterLost,
)
from daq_core.state.losses import in_words
from daq_core.state.options import DaqOptions
from daq_core.state.status import (
    Acquisition,
    AcquisitionState,
    Counters,
    DaqState,
    DaqStatus,
    Snapshot,
    WriteRequest,
)

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
NOTE_S = 1.0  # for the disk of the journal to note that a run begins
SETTLE_S = 3.0  # for Stop to wait for a new config, which is given up then
READY_S = 4.5  # for Stop to find a receiver that is down up again

Result = TypeVar("Result")


class Daq:
    """A running DAQ.

    Usage::

        async with Daq(DaqConfig.load("detector.json")) as daq:
            await daq.start(WriteRequest.checked("/data/run1.h5", 100))
            status = await daq.wait()
    """

    def __init__(
        self,
        config: DaqConfig,
        options: DaqOptions | None = None,
        forks: ForkServer | None = None,
        *,
        others: Sequence[DaqConfig] = (),
        store: ConfigStore | None = None,
    ) -> None:
        """Take what to run with; `others` are configs to start with when the first does not run."""
        options = options or DaqOptions()
        options.check(config)
        self.options = options
        self._others = others
        self._tasks: set[asyncio.Task[Any]] = set()
        self.n_stops = 0  # received so far
        self._claim: Claim | None = None  # of a start that is not a run yet
        self._run: Run | None = None
        self._followed: asyncio.Task[None] | None = None  # what becomes of the run
        self._meter = Meter()
        self._journal = Journal(options.state_dir)
        self._forks = forks or ForkServer()
        self._pipeline = Pipeline(
            config,
            udp_host=options.udp_host,
            udp_sources=options.udp_sources,
            receive_threads=options.receive_threads,
            id_source=options.id_source,
            receiver_lost=self.receiver_lost,
            receiver_up=self._on_receiver_up,
            forks=self._forks,
        )
        self.valve = Valve(self._pipeline)
        now = time.time()
        last = next(iter(self._journal.newest_first()), None)
        first = Snapshot(
            time=now,
            config=config,
            config_id=config_id(now),
            status=DaqStatus(acquisition=last or Acquisition()),
            log=self._journal.newest_first(),
            log_total=self._journal.total,
        )
        self._board = Board(first, self._pipeline)
        self._space = FreeSpace(options.output_roots[0].rstrip("/"), self._note_free_bytes)
        self._deployer = Deployer(
            self._board,
            self._pipeline,
            options,
            store=store,
            apply=self._step,
            spawn=self._spawn,
            is_running=lambda: self.is_taken,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._deployer.start(self._others)
        except BaseException:
            await self._pipeline.end()
            raise
        self._step(PipelineReady())
        self._spawn(self._beat())
        for begun in self._journal.unended:
            self._spawn(self._record_interrupted(begun))
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close a running file first, then end the processes."""
        with contextlib.suppress(DaqError, TimeoutError):
            await self.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._deployer.end()
        await self._pipeline.end()
        await self._space.end()
        await self._journal.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every snapshot from now on; returns what ends that.

        It is called in the loop, must not block and must not raise.
        """
        return self._board.subscribe(listener)

    @property
    def snapshot(self) -> Snapshot:
        """Everything there is to show, at this moment."""
        return self._board.snapshot

    # ---------------------------------------------------------------- commands

    async def start(
        self, request: WriteRequest, asked: Asked | None = None, *, by_valve: bool = False
    ) -> DaqStatus:
        """Begin a run; returns when its file exists and the writer waits for images.

        `asked` is for a face that had to wait between receiving the start and calling this.
        A run by valve takes the images that :attr:`valve` lets through, another one all that come.

        Raises
        ------
        InvalidRequest  it cannot be written there; nothing changed
        Busy            a run or another start is going on, or the DAQ is not ready; nothing changed
        Stopped         a Stop came after it, before its file was being opened; nothing changed
        RunFailed       the file could not be created; the status says FAILED
        Unavailable     no writer could be started; nothing changed
        """
        claim = self._take(request, asked or Asked(self.n_stops))  # before anything is waited for
        return await asyncio.shield(self._spawn(self._start(claim, by_valve)))

    async def wait(self) -> DaqStatus:
        """Wait for the end of the run that is going on, if any; returns the status at that moment."""
        if self._run is None:
            return self.snapshot.status
        return await asyncio.shield(self._run.ended)

    async def stop(self) -> DaqStatus:
        """End the run, or the start, if one is going on: what has arrived is written, the file is closed.

        Legal in every state; returns when READY, within five seconds.

        Raises
        ------
        Unavailable  the receiver is down and does not come up; the text says why
        """
        self.n_stops += 1  # what was received before this moment ends, and what comes after it does not
        claim, run = self._claim, self._run
        if claim is not None:
            claim.stop()
        if self.snapshot.status.state is DaqState.WRITING:
            self._step(StopRequested())
        return await asyncio.shield(self._spawn(self._stop(claim, run)))

    async def configure(self, changes: Mapping[str, object]) -> DaqConfig:
        """Take up a partial config change; returns the whole config at once.

        The receiver is replaced in the background: UNKNOWN, then READY (see :meth:`reconfigured`). A
        config that does not come up gives way to the one before it.

        Raises
        ------
        InvalidConfig   the result cannot be; nothing changed
        InvalidRequest  files may not belong to its writer_user_id; nothing changed
        Unavailable     this machine has not the memory or the ports for it; nothing changed
        Busy            a run or another change is going on; nothing changed
        """
        return await self._deployer.change(changes)

    def warn_of_config(self, trouble: str) -> None:
        """Show why the config in use is not the one that was wanted, until another one is set."""
        self._board.config_trouble = trouble
        self._board.show()

    def warn_of_saving(self, trouble: str) -> None:
        """Show why the config is not kept for the next start; "" when it is."""
        if trouble != self._board.unsaved:
            self._board.unsaved = trouble
            self._board.show()

    async def reconfigured(self) -> None:
        """Wait until the last accepted config is running; Unavailable says why it is not."""
        await self._deployer.deployed()

    # --------------------------------------------------------------- questions

    @property
    def is_taken(self) -> bool:
        """A run is going on, or about to."""
        return self._claim is not None or self._run is not None

    @property
    def ring(self) -> Ring:
        """The memory that receiver and writers share; a change of the config may make another."""
        return self._pipeline.ring

    @property
    def receiver_pid(self) -> int | None:
        return self._pipeline.receiver_pid

    def counters(self) -> Counters:
        """Return what the receiver has counted by now; the snapshot's may be a second old."""
        return read_counters(self._pipeline)

    async def flushed(self) -> None:
        """Wait until every image that has come in can be read from the file, or its run is over."""
        run = self._run
        n_images = 0 if run is None else run.n_kept
        while self._run is run and self.snapshot.status.acquisition.n_write_completed < n_images:
            await self._board.change()

    async def look_at(self, folder: str, *, may_make: int = 0) -> str:
        """Return why a run could not write into a folder now, "" when it could.

        `may_make` is how many missing folders at the end of the path may be made.

        Raises
        ------
        Unavailable  the file system did not answer
        """
        task = FolderTask(
            folder=folder,
            may_make=may_make,
            writer_user_id=self.snapshot.config.writer_user_id,
            writer_group=self.options.writer_group,
            min_user_id=self.options.min_user_id,
            output_roots=self.options.output_roots,
        )
        trouble = await look(self._forks, task)
        if not trouble:
            self.expect(folder)
        return trouble

    def expect(self, folder: str) -> None:
        """The next run will be written there, as far as anybody knows: its free space is shown."""
        self._space.ask_of(folder)

    # ------------------------------------------------------------------- a run

    def _take(self, request: WriteRequest, asked: Asked) -> Claim:
        """Claim the next run, or refuse; nothing is waited for in here."""
        step(self.snapshot.status, StartRequested(request), time.time())
        if self._claim is not None:
            where = self._claim.request.output_file
            raise Busy(f"A run into {where} is being started. Wait until it ends, or stop it.")
        if asked.n_stops != self.n_stops:
            raise Stopped(STOPPED)
        self._claim = Claim(request, asked)
        return self._claim

    async def _start(self, claim: Claim, by_valve: bool) -> DaqStatus:
        try:
            run = await self._accepted(claim, by_valve)
        finally:
            self._claim = None
            claim.end()
        self._followed = self._spawn(self._follow(run))
        noted = self._spawn(self._journal.begin(self._begun(claim.request)))  # while the file is opened
        await asyncio.wait({run.opened, run.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not (await asyncio.wait({noted}, timeout=NOTE_S))[0]:
            log.warning(
                "the disk of %s is slow: the start of the run is not noted yet", self.options.state_dir
            )
        if run.opened.done():
            return run.opened.result()
        raise RunFailed(run.ended.result().acquisition.message)

    async def _accepted(self, claim: Claim, by_valve: bool) -> Run:
        """Prepare a run and accept it: from then on it is shown, and ends in the log."""
        self.expect(claim.request.folder)
        task = task_of(claim.request, self.snapshot.config, self.options, self._pipeline)
        timeouts = self.options.image_timeouts()
        run = await claim.see(Run.prepare(task, self._pipeline, timeouts, by_valve=by_valve))
        try:
            claim.check()
            self._step(StartRequested(claim.request))
        except (Busy, Stopped):  # the receiver was lost meanwhile, or a Stop came in the same moment
            run.discard()
            raise
        self._board.run_warning, self._board.low_space = run.warning, run.low_space
        self._board.free_bytes = run.free_bytes
        self._run = run
        return run

    def _begun(self, request: WriteRequest) -> Begun:
        since = self.snapshot.status.pending_since or time.time()
        return Begun(request, since, self.snapshot.config.writer_user_id, self.options.writer_group)

    async def _record_interrupted(self, begun: Begun) -> None:
        """Record the end of a run that was going on when the service was killed."""
        ended = await end_of(begun, self.options.output_roots, self._forks)
        shown = self.snapshot.status
        if not shown.acquisition.running and (shown.acquisition.start_time or 0.0) < begun.start_time:
            self._board.show(status=replace(shown, acquisition=ended))  # it is the last run there was
        self._record(ended)

    async def _follow(self, run: Run) -> None:
        """See a run through; whatever happens in here, the DAQ is ready for the next one after it."""
        try:
            await run.follow(self.snapshot.status.pending_since or time.time(), self._step)
        except Exception as error:
            log.exception("a run could not be followed")
            run.kill("could not be followed")
            self._pipeline.release()
            with contextlib.suppress(Busy):  # it had ended already
                self._step(WriterLost(f"internal error: {error}"))
        self._run = None
        if run.unmended:
            self._spawn(run.mend_late())
        if run.aborted:
            self._record()
        if not self.snapshot.status.receiver_down:
            self._step(PipelineReady())

    async def _stop(self, claim: Claim | None, run: Run | None) -> DaqStatus:
        """See the end of the start or run that a Stop found, and then READY."""
        ended = self.snapshot.status
        if claim is not None:
            await claim.ended()
            ended = self.snapshot.status
        if run is not None and self._followed is not None:
            await run.wind_up(self._followed)
            ended = run.ended.result() if run.ended.done() else ended
        deadline = time.monotonic() + READY_S
        await self._deployer.settle(SETTLE_S)
        while self._is_down():
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._board.change()
            except TimeoutError:
                raise Unavailable(f"Stopped, but not READY: {self.snapshot.status.reason}.") from None
        now = self.snapshot.status
        return now if now.state is DaqState.READY else ended  # another run has begun since: not ours to end

    def _is_down(self) -> bool:
        """Whether the DAQ is UNKNOWN and a Stop does not change that yet."""
        is_unknown = self.snapshot.status.state is DaqState.UNKNOWN
        return is_unknown and self._step(StopRequested()).state is DaqState.UNKNOWN

    # ------------------------------------------------------------ the pipeline

    def receiver_lost(self, reason: str) -> None:
        """Take note that the receiver has ended, which ends the run that goes on."""
        before = self.snapshot.status
        after = self._step(ReceiverLost(reason))
        if self._run is not None and _ended(before, after):
            self._run.abort(f"receiver lost: {reason}")
        self._deployer.receiver_lost(reason)

    def _on_receiver_up(self) -> None:
        self._spawn(self._recover())

    async def _recover(self) -> None:
        """Be ready again, once the file of a failed run is closed."""
        while self._run is not None:
            await self._board.change()
        self._step(PipelineReady())

    # ------------------------------------------------------------ the snapshot

    async def _beat(self) -> None:
        """Refresh rates and counters once a second, whether or not anything happens."""
        due = time.monotonic()
        while True:
            due = max(due + HEARTBEAT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._board.log_trouble = self._journal.trouble
            self._deployer.look()
            self._board.waiting = self._waits_for()
            if self._run is None:
                self._space.look()
            else:  # its writer looks
                self._board.free_bytes = self._run.free_bytes
            self._board.show(stats=self._meter.rates(self._pipeline, time.monotonic()))

    def _waits_for(self) -> str:
        return self._run.waits_for if self._run is not None else ""

    def _note_free_bytes(self, n_bytes: int) -> None:
        self._board.free_bytes = n_bytes

    def _step(self, event: Event) -> DaqStatus:
        """Apply an event and show what changed; an acquisition that ended goes to the log."""
        before = self.snapshot.status
        status = self._with_losses(step(before, event, time.time()))
        if status == before:
            return status
        self._meter.n_written += _newly_written(before, status)
        self._board.waiting = "" if _ended(before, status) else self._waits_for()
        self._board.show(status=status)
        if _ended(before, status) and not isinstance(event, ReceiverLost):
            self._record()  # after a lost receiver the file still closes, and _follow records
        if self._run is not None:
            if isinstance(event, FileOpened) and not self._run.opened.done():
                self._run.opened.set_result(status)
            if _ended(before, status) and not self._run.ended.done():
                self._run.ended.set_result(status)
        return status

    def _with_losses(self, status: DaqStatus) -> DaqStatus:
        """Let the acquisition say what its run lost so far; one that is over keeps what it said last."""
        if self._run is None or status.pending is not None:
            return status
        return replace(status, acquisition=replace(status.acquisition, losses=self._run.losses))

    def _record(self, ended: Acquisition | None = None) -> None:
        """Put an acquisition that has ended, the last one, into the log."""
        ended = ended or self.snapshot.status.acquisition
        self._journal.add(ended)
        self._board.show(log=self._journal.newest_first(), log_total=self._journal.total)
        _log_end(ended)

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run something that must not end with the task that asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _ended(before: DaqStatus, after: DaqStatus) -> bool:
    """Tell whether a run was going on before, and none is after."""
    return (before.acquisition.running or before.pending is not None) and not (
        after.acquisition.running or after.pending is not None
    )


def _newly_written(before: DaqStatus, after: DaqStatus) -> int:
    if before.acquisition.request is not after.acquisition.request:
        return after.acquisition.n_write_completed
    return after.acquisition.n_write_completed - before.acquisition.n_write_completed


def _log_end(acquisition: Acquisition) -> None:
    """Tell the log how a run ended; a run that lost something is a warning, with all numbers."""
    where = acquisition.request.output_file if acquisition.request is not None else "?"
    lost = in_words(acquisition.losses) if acquisition.losses is not None else ""
    level = logging.WARNING if lost else logging.INFO
    if acquisition.state is AcquisitionState.FAILED:
        level = logging.ERROR
    n_images = f"{acquisition.n_write_completed} images"
    if lost and acquisition.efficiency is not None:
        lost += f"; efficiency {acquisition.efficiency:.1%}"
    log.log(level, "%s: %s, %s%s", where, acquisition.message, n_images, f"; lost: {lost}" if lost else "")
