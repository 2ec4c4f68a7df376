"""One run as the control process sees it: its writer, and the events that come of it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from dataclasses import asdict
from typing import Self

from daq_core.config import DaqConfig
from daq_core.control.repairs import mend_run
from daq_core.errors import Busy, InvalidRequest, Unavailable
from daq_core.files.output import UNKNOWN
from daq_core.pipeline.counters import read_losses
from daq_core.pipeline.pipeline import Pipeline
from daq_core.pipeline.waiting import Waiting
from daq_core.ring.words import Word, words_of
from daq_core.showing.keeper import Keeper, is_taken
from daq_core.showing.snapshots import RunNews
from daq_core.state.events import (
    AllAcquired,
    Event,
    FileClosed,
    FileOpened,
    ImageAcquired,
    ImagesWritten,
    OpenFailed,
    WriteFailed,
    WriterLost,
)
from daq_core.state.image_timeouts import ImageTimeouts
from daq_core.state.losses import NO_LOSSES
from daq_core.state.options import DaqOptions
from daq_core.state.status import AcquisitionState, DaqState, DaqStatus, WriteRequest
from daq_core.writing.handle import WriterLostError, WriterProcess
from daq_core.writing.task import (
    Abort,
    Checked,
    Closed,
    Failed,
    FileRefused,
    Hurry,
    Open,
    Opened,
    WriterTask,
)

log = logging.getLogger(__name__)

SOFTWARE = "std-daq-ioc " + importlib.metadata.version("std-daq-ioc")

CHECK_TIMEOUT_S = 4.0  # for a file system to say whether it has the folder
TICK_S = 0.02  # how often the counters are looked at
DRAIN_S = 2.5  # after a stop, for the images in memory to reach the disk
HURRY_S = 1.0  # after that, for the writer to close its file without the rest
MEND_S = 1.0  # for the file of a lost writer to be made readable
MEND_LATE_S = 60.0  # for the same, when nobody waits for it any more
LATE_TICK_S = 1.0  # how often a killed writer that hangs in its file system is looked at


class Run:
    """A writer process, the channel to it, and the ring armed for it.

    ``opened`` and ``ended`` are futures of the status at that moment.
    """

    def __init__(
        self,
        task: WriterTask,
        pipeline: Pipeline,
        keeper: Keeper,
        timeouts: ImageTimeouts,
        *,
        by_valve: bool,
    ) -> None:
        self.task = task
        self.by_valve = by_valve  # it takes what the valve lets through, and nothing else
        self._pipeline = pipeline
        self._keeper = keeper
        self._timeouts = timeouts
        self._writer = WriterProcess(task, pipeline.open_channel)
        self._epoch = 0  # 0: not armed yet
        self._waiting: Waiting | None = None  # from when it is
        self._checked = Checked(UNKNOWN, "", "", "")  # what the writer said when it had looked at the path
        self.stopped = False  # a stop was asked for, be it before the run began
        self.aborted = False  # the receiver is gone; the run has failed already
        self._abort_reason = ""
        self.unmended = ""  # what the file should say, when its file system did not let us yet
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[DaqStatus] = loop.create_future()
        self.ended: asyncio.Future[DaqStatus] = loop.create_future()

    @classmethod
    async def prepare(
        cls,
        task: WriterTask,
        pipeline: Pipeline,
        keeper: Keeper,
        timeouts: ImageTimeouts,
        *,
        by_valve: bool,
    ) -> Self:
        """Fork a writer and let it look at the path; what it has to warn of is in the run.

        Raises
        ------
        InvalidRequest  the file cannot be written there
        Unavailable     the file system did not answer, or no writer could be started
        """
        run = cls(task, pipeline, keeper, timeouts, by_valve=by_valve)
        try:
            await run._writer.open()
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                answer = await run._writer.hear()
        except asyncio.CancelledError:  # nobody wants the run any more
            run._writer.abandon()
            raise
        except TimeoutError:
            run.kill("did not answer")
            raise Unavailable(
                f"The file system of {task.output_file} did not answer within {CHECK_TIMEOUT_S:.0f} s."
            ) from None
        except WriterLostError as error:
            run.discard()
            raise Unavailable(f"The writer process failed: {error}.") from None
        if isinstance(answer, FileRefused):
            run.discard()
            raise InvalidRequest(answer.reason)
        run._checked = answer
        if answer.note:
            log.info("%s: %s", task.output_file, answer.note)
        return run

    async def follow(self, start_time: float) -> None:
        """Open the file, and turn what happens until its end into events; never raises."""
        try:
            await self._follow(start_time)
        except Exception as error:
            log.exception("a run could not be followed")
            self.kill("could not be followed")
            self._pipeline.release()
            with contextlib.suppress(Busy):  # it had ended already
                self._keeper.apply(WriterLost(f"internal error: {error}"))
            self._see_end(self._keeper.status)

    async def _follow(self, start_time: float) -> None:
        self._writer.order(Open(start_time, self._pipeline.next_epoch))
        heard = asyncio.ensure_future(self._writer.hear())
        try:
            while True:
                await asyncio.wait({heard}, timeout=TICK_S)
                if not heard.done():
                    self._see_it_wait()  # before the images are shown: with them the wait is over
                    self._fold_counters()
                    if not self.ended.done():
                        self._keeper.note(self.news)
                elif isinstance(message := heard.result(), Opened):
                    if not self.aborted:
                        self._arm()
                    heard = asyncio.ensure_future(self._writer.hear())
                else:
                    failure = message.reason if isinstance(message, Failed) else self._abort_reason
                    if failure and self.opened.done():
                        await self._until_gone()
                        await self._mend(failure)  # a file that was closed in order has failed too
                    self._end(message)
                    return
        except WriterLostError as error:
            self._fold_counters()
            self._pipeline.release()
            self._pipeline.n_restarts += 1
            self._apply(WriterLost(str(error)))
            await self._mend(f"writer lost: {error}")
        finally:
            heard.cancel()
            self._pipeline.release()
            self.discard()

    def _arm(self) -> None:
        """Arm the ring and show WAITING_IMAGES in one go: an image that follows belongs to the run.

        When a stop came first no image does, and the ring is not armed.
        """
        if self.stopped:
            self._epoch = self._pipeline.pass_over()
        else:
            self._epoch = self._pipeline.arm(
                self.task.n_images,
                self.task.n_writers,
                by_valve=self.by_valve,
                start_id=self.task.start_id,
                end_id=self.task.end_id,
            )
            pipeline = self._pipeline
            self._waiting = Waiting(pipeline.ring, pipeline.layout, pipeline.config, time.monotonic())
        self.opened.set_result(self._apply(FileOpened()))

    def _end(self, message: Closed | Failed) -> None:
        self._fold_counters()
        self._pipeline.release()
        if isinstance(message, Closed):
            saw_last_id = self.task.end_id is not None and not self.stopped
            self._apply(FileClosed(message.n_completed, saw_last_id))
        elif self._epoch or self.aborted:
            self._apply(WriteFailed(message.reason, message.n_completed))
        else:
            self._apply(OpenFailed(message.reason))

    def _apply(self, event: Event) -> DaqStatus:
        """Apply an event of this run, with what there is to show of it; by some it ends."""
        status = self._keeper.apply(event, self.news)
        self._see_end(status)
        return status

    def _see_end(self, status: DaqStatus) -> None:
        if not is_taken(status) and not self.ended.done():
            self.ended.set_result(status)

    @property
    def _is_taken_up(self) -> bool:
        """Whether the receiver has begun this run: what the ring counts is this run's then."""
        return self._epoch != 0 and bool(self._pipeline.words[Word.RUN_EPOCH] == self._epoch)

    @property
    def n_kept(self) -> int:
        """Images of this run that came in so far."""
        return int(self._pipeline.words[Word.RUN_KEPT]) if self._is_taken_up else 0

    @property
    def news(self) -> RunNews:
        """What there is to show of this run besides its state."""
        seen = int(self._pipeline.words[Word.DISK_FREE]) if self.opened.done() else UNKNOWN
        return RunNews(
            warning=self._checked.warning,
            low_space=self._checked.low_space,
            free_bytes=seen or self._checked.free_bytes,
            waits_for=self._waiting.sentence if self._waiting is not None and not self.ended.done() else "",
            losses=read_losses(self._pipeline) if self._is_taken_up else NO_LOSSES,
        )

    def _fold_counters(self) -> None:
        """Make events of what receiver and writer counted since the last look."""
        words = self._pipeline.words
        if not self._is_taken_up:
            return
        n_kept, n_completed = int(words[Word.RUN_KEPT]), int(words_of(words, Word.COMPLETED).sum())
        status = self._keeper.status
        if status.state is not DaqState.WRITING:
            return  # the receiver was lost: the run has ended already
        if n_kept > 0 and status.acquisition.state is AcquisitionState.WAITING_IMAGES:
            status = self._apply(ImageAcquired())
        counted = (status.acquisition.n_write_requested, status.acquisition.n_write_completed)
        if (n_kept, n_completed) == counted:
            return
        n_images = self.task.n_images
        # Of a run that was over between two looks, show the state it passed through.
        self._apply(ImagesWritten(n_kept, min(n_completed, n_images - 1) if n_images else n_completed))
        if n_images and n_kept >= n_images:
            self._apply(AllAcquired())
        self._apply(ImagesWritten(n_kept, n_completed))

    def _see_it_wait(self) -> None:
        """Notice when no image comes; a run that waits too long is closed as FAILED, with those it has."""
        if self._waiting is None or self.aborted:
            return
        words = self._pipeline.words
        if self.by_valve and words[Word.VALVE] % 2 == 0:
            self._timeouts.pause()  # it waits for a client, not for the detector
            self._waiting.pause()
            return
        status = self._keeper.status
        state = status.acquisition.state
        if status.state is not DaqState.WRITING or state is AcquisitionState.FLUSHING_IMAGES:
            self._waiting.pause()
            return
        n_images = int(words[Word.RUN_KEPT] + words[Word.RUN_DROPPED]) if self._is_taken_up else 0
        self._waiting.look(self.n_kept, time.monotonic())
        if reason := self._timeouts.overdue(n_images, time.monotonic()):
            self._apply(AllAcquired())
            self._pipeline.disarm()
            self._writer.order(Abort(reason))

    async def wind_up(self, followed: asyncio.Task[None]) -> None:
        """Let a stopped run end: it drains; if that takes long it is hurried, and at last killed.

        Returns when the task that follows the run is done: the file is closed, or mended.
        """
        self.stopped = True
        if self._epoch:
            self._pipeline.disarm()
        patience = ((DRAIN_S, self._hurry), (HURRY_S, lambda: self.kill("did not end when it was stopped")))
        for seconds, act in patience:
            if (await asyncio.wait({followed}, timeout=seconds))[0]:
                return
            act()
        await asyncio.wait({followed})

    def _hurry(self) -> None:
        log.warning("%s: the disk is slow; images still in memory are given up", self.task.output_file)
        self._writer.order(Hurry())

    def abort(self, reason: str) -> None:
        """The receiver is gone, and the run has failed: have its images written, and the file closed."""
        self._see_end(self._keeper.status)
        self.aborted = True
        self._abort_reason = reason
        self._pipeline.disarm()
        self._writer.order(Abort(reason))

    def kill(self, why: str) -> None:
        """End the writer at once; its file stays as it is."""
        self._writer.kill(why)

    def discard(self) -> None:
        """Close the channel; a writer that has no file yet ends by that."""
        self._writer.close()

    async def _until_gone(self) -> None:
        """Wait for the end of a writer that has said its last word; it may still hold the file."""
        with contextlib.suppress(WriterLostError, TimeoutError):
            async with asyncio.timeout(MEND_S):
                await self._writer.hear()

    async def _mend(self, reason: str, patience_s: float = MEND_S) -> None:
        """Have a process make a file readable that was not closed in order, and say why in it."""
        self.unmended = reason
        if await mend_run(self._pipeline.forks, self.task, reason, patience_s):
            self.unmended = ""

    async def mend_late(self) -> None:
        """Mend the file when its file system has let go of the writer, however long that takes."""
        log.warning("%s is repaired when its file system answers again", self.task.output_file)
        while self._writer.is_there:  # noqa: ASYNC110 - the kernel tells nobody but its parent
            await asyncio.sleep(LATE_TICK_S)
        await self._mend(self.unmended, MEND_LATE_S)
        if self.unmended:
            log.error("%s was given up; by hand: std-daq-ioc repair FILE", self.task.output_file)


def task_of(request: WriteRequest, config: DaqConfig, options: DaqOptions, pipeline: Pipeline) -> WriterTask:
    """Put together all that a writer needs to know."""
    layout, shape = pipeline.layout, pipeline.shape
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
        room_bytes=shape.room_bytes,
        writer_user_id=config.writer_user_id,
        writer_group=options.writer_group,
        min_user_id=options.min_user_id,
        output_roots=options.output_roots,
        overwrite=options.overwrite,
        compression=config.compression,
        compression_threads=config.compression_threads,
        direct_io=options.direct_io == "auto",
        n_writers=max(1, config.number_of_writers),
    )
