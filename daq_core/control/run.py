"""One run as the control process sees it: its writer, and the events that come of it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Self

from daq_core.config import DaqConfig
from daq_core.control.counters import read_losses
from daq_core.control.pipeline import Pipeline
from daq_core.control.repairs import mend
from daq_core.control.waiting import Waiting
from daq_core.errors import DaqError, InvalidRequest, Unavailable
from daq_core.files.output import UNKNOWN
from daq_core.ring.ring import Word, words_of
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
from daq_core.state.losses import NO_LOSSES, Losses
from daq_core.state.options import DaqOptions
from daq_core.state.status import AcquisitionState, DaqState, DaqStatus, WriteRequest
from daq_core.writing.handle import WriterLostError, WriterProcess
from daq_core.writing.task import Abort, Closed, Failed, Hurry, MendTask, Open, Opened, Refused, WriterTask

log = logging.getLogger(__name__)

SOFTWARE = "std-daq-ioc " + importlib.metadata.version("std-daq-ioc")

CHECK_TIMEOUT_S = 4.0  # for a file system to say whether it has the folder
TICK_S = 0.02  # how often the counters are looked at
DRAIN_S = 2.5  # after a stop, for the images in memory to reach the disk
HURRY_S = 1.0  # after that, for the writer to close its file without the rest
MEND_S = 1.0  # for the file of a lost writer to be made readable
MEND_LATE_S = 60.0  # for the same, when nobody waits for it any more
LATE_TICK_S = 1.0  # how often a killed writer that hangs in its file system is looked at

Apply = Callable[[Event], DaqStatus]


class Run:
    """A writer process, the channel to it, and the ring armed for it.

    ``opened`` and ``ended`` are futures of the status at that moment; the owner
    sets them, because it is the one who knows.
    """

    def __init__(
        self,
        task: WriterTask,
        pipeline: Pipeline,
        timeouts: ImageTimeouts | None = None,
        *,
        by_valve: bool = False,
    ) -> None:
        self.task = task
        self.by_valve = by_valve  # it takes what the valve lets through, and nothing else
        self._pipeline = pipeline
        self._timeouts = timeouts or ImageTimeouts()
        self._writer = WriterProcess(task, pipeline.open_channel)
        self._epoch = 0  # 0: not armed yet
        self._waiting: Waiting | None = None  # from when it is
        self.warning = ""  # of the user whose files these will be
        self.low_space = ""  # of the file system
        self._free_bytes = UNKNOWN  # when the writer looked at the path
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
        timeouts: ImageTimeouts | None = None,
        *,
        by_valve: bool = False,
    ) -> Self:
        """Fork a writer and let it look at the path; what it has to warn of is in the run.

        Raises
        ------
        InvalidRequest  the file cannot be written there
        Unavailable     the file system did not answer, or no writer could be started
        """
        run = cls(task, pipeline, timeouts, by_valve=by_valve)
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
        if isinstance(answer, Refused):
            run.discard()
            raise InvalidRequest(answer.reason)
        run.warning, run.low_space, run._free_bytes = answer.warning, answer.low_space, answer.free_bytes
        if answer.note:
            log.info("%s: %s", task.output_file, answer.note)
        return run

    async def follow(self, start_time: float, apply: Apply) -> None:
        """Open the file, and turn what happens until its end into events."""
        self._writer.order(Open(start_time, self._pipeline.next_epoch))
        heard = asyncio.ensure_future(self._writer.hear())
        try:
            while True:
                await asyncio.wait({heard}, timeout=TICK_S)
                if not heard.done():
                    self._see_it_wait(apply)  # before the images are shown: with them the wait is over
                    self._fold_counters(apply)
                elif isinstance(message := heard.result(), Opened):
                    if not self.aborted:
                        self._arm(apply)
                    heard = asyncio.ensure_future(self._writer.hear())
                else:
                    failure = message.reason if isinstance(message, Failed) else self._abort_reason
                    if failure and self.opened.done():
                        await self._until_gone()
                        await self._mend(failure)  # a file that was closed in order has failed too
                    self._end(message, apply)
                    return
        except WriterLostError as error:
            self._fold_counters(apply)
            self._pipeline.release()
            self._pipeline.n_restarts += 1
            apply(WriterLost(str(error)))
            await self._mend(f"writer lost: {error}")
        finally:
            heard.cancel()
            self._pipeline.release()
            self.discard()

    def _arm(self, apply: Apply) -> None:
        """Arm the ring and show WAITING_IMAGES in one go: an image that follows belongs to the run.

        When a stop came first no image does, and the ring is not armed.
        """
        if self.stopped:
            self._epoch = self._pipeline.pass_over()
        else:
            self._epoch = self._pipeline.arm(self.task.n_images, self.task.n_writers, by_valve=self.by_valve)
            pipeline = self._pipeline
            self._waiting = Waiting(pipeline.ring, pipeline.layout, pipeline.config, time.monotonic())
        apply(FileOpened())

    def _end(self, message: Closed | Failed, apply: Apply) -> None:
        self._fold_counters(apply)
        self._pipeline.release()
        if isinstance(message, Closed):
            apply(FileClosed(message.n_completed))
        elif self._epoch or self.aborted:
            apply(WriteFailed(message.reason, message.n_completed))
        else:
            apply(OpenFailed(message.reason))

    @property
    def _is_taken_up(self) -> bool:
        """Whether the receiver has begun this run: what the ring counts is this run's then."""
        return self._epoch != 0 and bool(self._pipeline.words[Word.RUN_EPOCH] == self._epoch)

    @property
    def n_kept(self) -> int:
        """Images of this run that came in so far."""
        return int(self._pipeline.words[Word.RUN_KEPT]) if self._is_taken_up else 0

    @property
    def free_bytes(self) -> int:
        """Bytes free where this run is written, as its writer saw them last; or UNKNOWN."""
        seen = int(self._pipeline.words[Word.DISK_FREE]) if self.opened.done() else UNKNOWN
        return seen or self._free_bytes

    @property
    def losses(self) -> Losses:
        """What this run lost so far."""
        return read_losses(self._pipeline) if self._is_taken_up else NO_LOSSES

    def _fold_counters(self, apply: Apply) -> None:
        """Make events of what receiver and writer counted since the last look."""
        words = self._pipeline.words
        if not self._is_taken_up:
            return
        n_kept, n_completed = int(words[Word.RUN_KEPT]), int(words_of(words, Word.COMPLETED).sum())
        status = apply(ImagesWritten(0, 0))
        if status.state is not DaqState.WRITING:
            return  # the receiver was lost: the run has ended already
        if n_kept > 0 and status.acquisition.state is AcquisitionState.WAITING_IMAGES:
            status = apply(ImageAcquired())
        counted = (status.acquisition.n_write_requested, status.acquisition.n_write_completed)
        if (n_kept, n_completed) == counted:
            return
        n_images = self.task.n_images
        # Of a run that was over between two looks, show the state it passed through.
        apply(ImagesWritten(n_kept, min(n_completed, n_images - 1) if n_images else n_completed))
        if n_images and n_kept >= n_images:
            apply(AllAcquired())
        apply(ImagesWritten(n_kept, n_completed))

    @property
    def waits_for(self) -> str:
        """What is amiss when no image comes, "" while images come."""
        return self._waiting.sentence if self._waiting is not None else ""

    def _see_it_wait(self, apply: Apply) -> None:
        """Notice when no image comes; a run that waits too long is closed as FAILED, with those it has."""
        if self._waiting is None or self.aborted:
            return
        words = self._pipeline.words
        if self.by_valve and words[Word.VALVE] % 2 == 0:
            self._timeouts.pause()  # it waits for a client, not for the detector
            self._waiting.pause()
            return
        status = apply(ImagesWritten(0, 0))
        state = status.acquisition.state
        if status.state is not DaqState.WRITING or state is AcquisitionState.FLUSHING_IMAGES:
            self._waiting.pause()
            return
        n_images = int(words[Word.RUN_KEPT] + words[Word.RUN_DROPPED]) if self._is_taken_up else 0
        self._waiting.look(self.n_kept, time.monotonic())
        if reason := self._timeouts.overdue(n_images, time.monotonic()):
            apply(AllAcquired())
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
        """The receiver is gone: have what is in the ring written, and the file closed as FAILED."""
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
        task = MendTask(
            output_file=self.task.output_file,
            run_id=str(self.task.run_id),
            writer_user_id=self.task.writer_user_id,
            writer_group=self.task.writer_group,
            output_roots=self.task.output_roots,
            failure=f"ERROR: {reason}",
        )
        try:
            async with asyncio.timeout(patience_s):
                report = await mend(self._pipeline.forks, task, look_s=patience_s, patience_s=patience_s)
        except (DaqError, TimeoutError) as error:
            why = str(error) or "no answer in time, or it is still open elsewhere"
            log.error("%s could not be repaired yet: %s", self.task.output_file, why)
        else:
            self.unmended = ""
            log.warning("%s", report.message)

    async def mend_late(self) -> None:
        """Mend the file when its file system has let go of the writer, however long that takes."""
        log.warning("%s is repaired when its file system answers again", self.task.output_file)
        while self._writer.is_there:  # noqa: ASYNC110  the kernel tells nobody but its parent
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
