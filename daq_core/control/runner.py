"""One run at a time, from the claim on it to its record; what is received while one goes on is refused."""

from __future__ import annotations

import asyncio
import logging
import time

from daq_core.control.claim import STOPPED, Asked, Claim
from daq_core.control.run import Run, task_of
from daq_core.control.tasks import Tasks
from daq_core.errors import Busy, RunFailed, Stopped
from daq_core.pipeline.pipeline import Pipeline
from daq_core.showing.journal import Begun, Journal
from daq_core.showing.keeper import Keeper
from daq_core.showing.snapshots import Board
from daq_core.state.acquisition import step
from daq_core.state.events import PipelineReady, StartRequested, StopRequested
from daq_core.state.options import DaqOptions
from daq_core.state.status import DaqState, DaqStatus, WriteRequest

log = logging.getLogger(__name__)

NOTE_S = 1.0  # for the disk of the journal to note that a run begins


class Runner:
    """Starts, follows and stops runs; commands of people come by ``daq_core.control.daq``."""

    def __init__(
        self,
        board: Board,
        keeper: Keeper,
        pipeline: Pipeline,
        journal: Journal,
        options: DaqOptions,
        tasks: Tasks,
    ) -> None:
        self.n_stops = 0  # received so far
        self.run: Run | None = None
        self._claim: Claim | None = None  # of a start that is not a run yet
        self._followed: asyncio.Task[None] | None = None  # what becomes of the run
        self._board = board
        self._keeper = keeper
        self._pipeline = pipeline
        self._journal = journal
        self._options = options
        self._tasks = tasks

    @property
    def is_taken(self) -> bool:
        """A run is going on, or about to."""
        return self._claim is not None or self.run is not None

    def take(self, request: WriteRequest, asked: Asked | None) -> Claim:
        """Claim the next run, or refuse as ``Daq.start`` says; nothing is waited for in here."""
        step(self._keeper.status, StartRequested(request), time.time())
        if self._claim is not None:
            where = self._claim.request.output_file
            raise Busy(f"A run into {where} is being started. Wait until it ends, or stop it.")
        asked = asked or Asked(self.n_stops)
        if asked.n_stops != self.n_stops:
            raise Stopped(STOPPED)
        self._claim = Claim(request, asked)
        return self._claim

    async def start(self, claim: Claim, *, by_valve: bool) -> DaqStatus:
        """Make a run of a claim; returns when its file is open, or raises as ``Daq.start`` says."""
        try:
            run = await self._accepted(claim, by_valve)
        finally:
            self._claim = None
            claim.end()
        self._followed = self._tasks.spawn(self._follow(run))
        noted = self._tasks.spawn(self._journal.begin(self._begun(claim.request)))  # while the file is opened
        await asyncio.wait({run.opened, run.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not (await asyncio.wait({noted}, timeout=NOTE_S))[0]:
            log.warning(
                "the disk of %s is slow: the start of the run is not noted yet", self._options.state_dir
            )
        if run.opened.done():
            return run.opened.result()
        raise RunFailed(run.ended.result().acquisition.message)

    async def _accepted(self, claim: Claim, by_valve: bool) -> Run:
        """Prepare a run and accept it: from then on it is shown, and ends in the log."""
        task = task_of(claim.request, self._board.snapshot.config, self._options, self._pipeline)
        timeouts = self._options.image_timeouts()
        run = await claim.see(Run.prepare(task, self._pipeline, self._keeper, timeouts, by_valve=by_valve))
        try:
            claim.check()
            self._keeper.apply(StartRequested(claim.request))
        except (Busy, Stopped):  # the receiver was lost meanwhile, or a Stop came in the same moment
            run.discard()
            raise
        self._keeper.note(run.news)
        self.run = run
        return run

    def _begun(self, request: WriteRequest) -> Begun:
        since = self._keeper.status.pending_since or time.time()
        return Begun(request, since, self._board.snapshot.config.writer_user_id, self._options.writer_group)

    async def _follow(self, run: Run) -> None:
        """See a run through; whatever happens to it, the DAQ is ready for the next one after it."""
        await run.follow(self._keeper.status.pending_since or time.time())
        self.run = None
        if run.unmended:
            self._tasks.spawn(run.mend_late())
        if run.aborted:
            self._keeper.record()
        if not self._keeper.status.receiver_down:
            self._keeper.apply(PipelineReady())

    def stop(self) -> asyncio.Task[DaqStatus]:
        """Have the run, or the start, end that is going on; returns the task that sees its end.

        What was received before this moment ends, and what comes after it does not.
        """
        self.n_stops += 1
        if self._claim is not None:
            self._claim.stop()
        if self._keeper.status.state is DaqState.WRITING:
            self._keeper.apply(StopRequested())
        return self._tasks.spawn(self._end_of(self._claim, self.run, self._followed))

    async def _end_of(
        self, claim: Claim | None, run: Run | None, followed: asyncio.Task[None] | None
    ) -> DaqStatus:
        """See the end of a start or a run that a Stop found; returns the status at that moment."""
        ended = self._keeper.status
        if claim is not None:
            await claim.ended()
            ended = self._keeper.status
        if run is not None and followed is not None:
            await run.wind_up(followed)
            ended = run.ended.result() if run.ended.done() else ended
        return ended

    def abort(self, reason: str) -> None:
        """The receiver is gone, and with it the run that was going on, if any."""
        if self.run is not None and not self.run.ended.done():
            self.run.abort(reason)

    async def wait(self) -> DaqStatus:
        """Wait for the end of the run that is going on, if any; returns the status at that moment."""
        if self.run is None:
            return self._keeper.status
        return await asyncio.shield(self.run.ended)

    async def over(self) -> None:
        """Wait until no run is going on, and the file of the last one is closed."""
        while self.run is not None:
            await self._board.change()

    async def flushed(self) -> None:
        """Wait until every image that has come in can be read from the file, or its run is over."""
        run = self.run
        n_images = 0 if run is None else run.n_kept
        while self.run is run and self._keeper.status.acquisition.n_write_completed < n_images:
            await self._board.change()
