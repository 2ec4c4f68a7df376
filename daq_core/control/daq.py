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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from daq_core.config import DaqConfig
from daq_core.control.claim import Asked
from daq_core.control.deployment import ConfigStore, Deployer, config_id
from daq_core.control.folder import look
from daq_core.control.interrupted import end_of
from daq_core.control.runner import Runner
from daq_core.control.task import FolderTask
from daq_core.control.tasks import Tasks
from daq_core.errors import DaqError, Unavailable
from daq_core.pipeline.counters import read_counters
from daq_core.pipeline.pipeline import Pipeline
from daq_core.pipeline.valve import Valve
from daq_core.processes.forks import ForkServer
from daq_core.ring.ring import Ring
from daq_core.showing.free_space import FreeSpace
from daq_core.showing.journal import Begun, Journal
from daq_core.showing.keeper import Keeper
from daq_core.showing.snapshots import Board, Listener
from daq_core.state.events import PipelineReady, ReceiverLost, StopRequested
from daq_core.state.options import DaqOptions
from daq_core.state.status import Acquisition, Counters, DaqState, DaqStatus, Snapshot, WriteRequest

HEARTBEAT_S = 1.0
SETTLE_S = 3.0  # for Stop to wait for a new config, which is given up then
READY_S = 4.5  # for Stop to find a receiver that is down up again


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
        self._tasks = Tasks()
        self._board = Board(_first_snapshot(config, self._journal), self._pipeline)
        self._keeper = Keeper(self._board, self._pipeline, self._journal)
        self._runner = Runner(self._board, self._keeper, self._pipeline, self._journal, options, self._tasks)
        self._space = FreeSpace(options.output_roots[0].rstrip("/"), self._note_free_bytes)
        self._deployer = Deployer(
            self._board,
            self._pipeline,
            options,
            store=store,
            keeper=self._keeper,
            spawn=self._tasks.spawn,
            is_running=lambda: self.is_taken,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._deployer.start(self._others)
        except BaseException:
            await self._pipeline.end()
            raise
        self._keeper.apply(PipelineReady())
        self._tasks.spawn(self._beat())
        for begun in self._journal.unended:
            self._tasks.spawn(self._record_interrupted(begun))
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close a running file first, then end the processes."""
        with contextlib.suppress(DaqError, TimeoutError):
            await self.stop()
        await self._tasks.end()
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
        claim = self._runner.take(request, asked)  # before anything is waited for
        self.expect(request.folder)
        return await asyncio.shield(self._tasks.spawn(self._runner.start(claim, by_valve=by_valve)))

    async def wait(self) -> DaqStatus:
        """Wait for the end of the run that is going on, if any; returns the status at that moment."""
        return await self._runner.wait()

    async def stop(self) -> DaqStatus:
        """End the run, or the start, if one is going on: what has arrived is written, the file is closed.

        Legal in every state; returns when READY, within five seconds.

        Raises
        ------
        Unavailable  the receiver is down and does not come up; the text says why
        """
        end = self._runner.stop()  # of what was received before this moment
        return await asyncio.shield(self._tasks.spawn(self._ready_after(end)))

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
    def n_stops(self) -> int:
        """Stops received so far."""
        return self._runner.n_stops

    @property
    def is_taken(self) -> bool:
        """A run is going on, or about to."""
        return self._runner.is_taken

    @property
    def ring(self) -> Ring:
        """The memory that receiver and writers share; a change of the config may make another."""
        return self._pipeline.ring

    @property
    def ids_in_ring(self) -> tuple[int, int] | None:
        """The lowest and the highest id of the finished images that the ring still has; None: it has none."""
        return self._pipeline.ids_in_ring

    @property
    def receiver_pid(self) -> int | None:
        return self._pipeline.receiver_pid

    def counters(self) -> Counters:
        """Return what the receiver has counted by now; the snapshot's may be a second old."""
        return read_counters(self._pipeline)

    async def flushed(self) -> None:
        """Wait until every image that has come in can be read from the file, or its run is over."""
        await self._runner.flushed()

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

    # ------------------------------------------------------------- what happens

    async def _ready_after(self, end: asyncio.Task[DaqStatus]) -> DaqStatus:
        """See the end of what a Stop found, and then READY."""
        ended = await end
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
        return is_unknown and self._keeper.apply(StopRequested()).state is DaqState.UNKNOWN

    def receiver_lost(self, reason: str) -> None:
        """Take note that the receiver has ended, which ends the run that goes on."""
        self._keeper.apply(ReceiverLost(reason))
        self._runner.abort(f"receiver lost: {reason}")
        self._deployer.receiver_lost(reason)

    def _on_receiver_up(self) -> None:
        self._tasks.spawn(self._recover())

    async def _recover(self) -> None:
        """Be ready again, once the file of a failed run is closed."""
        await self._runner.over()
        self._keeper.apply(PipelineReady())

    async def _record_interrupted(self, begun: Begun) -> None:
        """Record the end of a run that was going on when the service was killed."""
        ended = await end_of(begun, self.options.output_roots, self._forks)
        self._keeper.show_last(ended)
        self._keeper.record(ended)

    async def _beat(self) -> None:
        """Refresh rates and counters once a second, whether or not anything happens."""
        due = time.monotonic()
        while True:
            due = max(due + HEARTBEAT_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._deployer.look()
            if self._runner.run is None:  # in a run its writer looks
                self._space.look()
            self._keeper.beat()

    def _note_free_bytes(self, n_bytes: int) -> None:
        self._board.news = replace(self._board.news, free_bytes=n_bytes)


def _first_snapshot(config: DaqConfig, journal: Journal) -> Snapshot:
    """Return what there is to show before anything runs: the last run is the journal's."""
    now = time.time()
    last = next(iter(journal.newest_first()), None)
    return Snapshot(
        time=now,
        config=config,
        config_id=config_id(now),
        status=DaqStatus(acquisition=last or Acquisition()),
        log=journal.newest_first(),
        log_total=journal.total,
    )
