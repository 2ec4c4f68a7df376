"""The writer process: one short-lived fork per run takes images from the ring into a file.

It is forked by ``daq_core.fork_server`` within milliseconds. One process a run, because
a user id is a process's, a sick file system may hang one for good, and a failed
close poisons HDF5.

A writer talks over its own socket, in the words of ``daq_core.writing.task``::

    control                         writer
    WriterTask                 ->
                               <-   Present
                               <-   Checked, or FileRefused
    Open                       ->
                               <-   Opened, or Failed
    Hurry                      ->        end now: images still in the ring are given up
    Abort                      ->        the receiver is gone: write what is published, end as FAILED
                               <-   Closed, or Failed
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.codecs.compressor import Compressor
from daq_core.config import DaqConfig
from daq_core.errors import DaqError
from daq_core.files.image_file import ImageFile
from daq_core.files.layout import COUNTERS, RunMetadata
from daq_core.files.output import check_output, check_space, space_left
from daq_core.files.parts import part_path, share_of
from daq_core.linux.futex import wait_for_change
from daq_core.linux.mapping import map_pages
from daq_core.linux.urgency import be_usual
from daq_core.linux.user import become, find_owner
from daq_core.processes.lines import Lines
from daq_core.ring.ring import OTHER_FORMAT, SKIPPED, Ring, RingShape
from daq_core.ring.words import WRITER_WORDS, Word, words_of
from daq_core.state.acquisition import COMPLETED, INTERRUPTED
from daq_core.writing.conversion import Converter
from daq_core.writing.late_verdicts import LateVerdicts
from daq_core.writing.lead import Lead
from daq_core.writing.task import (
    TO_WRITER,
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

HAND_OVER = 32  # most images between two flushes; fewer when the writer keeps up
GATHER_S = 0.02  # how far apart hand-overs begin, unless one is full or the last: it halves their cost
QUEUEING_PARTS = 4  # of the ring; when images fill one of them, the disk is too slow for the moment
WAIT_S = 0.02  # how long a missed wake-up or word from control can go unnoticed


class Writer:
    """One run, or one writer's share of it, from the file's first byte to its last."""

    def __init__(
        self,
        task: WriterTask,
        control: Lines,
        ring: Ring,
        converter: Converter | None = None,
        number: int = 0,
    ) -> None:
        self.task = task
        self.control = control
        self.ring = ring
        self.converter = converter
        self.number = number  # of task.n_writers that share the run's images
        self.path = part_path(task.output_file, number) if task.n_writers > 1 else task.output_file
        self.words = ring.words
        self.own = ring.words[number * WRITER_WORDS :]  # own[Word.CONSUMED] is this writer's, and so on
        self.failure = ""  # why the run ends as FAILED although the file is fine
        self.given_up = False  # do not wait for the rest of the images
        self._n_seen = 0  # images of the run that were to be written, by whichever writer
        self._mapped = np.zeros(len(ring.slots), np.bool_)  # slots whose pages this process has
        self._verdicts = LateVerdicts(ring)
        self._noted_s = 0.0  # when the free space was looked at last

    def run(self, start_time: float, epoch: int) -> None:
        """Create the file, write the run's images and close it; every outcome is told to control."""
        try:
            file = self._create(start_time)
        except OSError as error:
            self.control.tell(Failed(str(error), 0))
            return
        self.own[Word.COMPLETED] = 0
        self.own[Word.GIVEN_UP] = 0
        self.own[Word.INVALID_PIXELS] = 0
        self.own[Word.DISK_FREE] = 0
        self.control.tell(Opened())
        be_usual()
        self._fill(file, epoch)

    def _create(self, start_time: float) -> ImageFile:
        task = self.task
        dtype = np.dtype(task.dtype)
        compressor = None
        if task.compression != "none":
            compressor = Compressor(task.compression, task.image_shape, dtype, task.threads)
        return ImageFile.create(
            self.path,
            shape=task.image_shape,
            dtype=dtype,
            detector_name=task.detector_name,
            compressor=compressor,
            direct=task.direct_io,
            run=RunMetadata(
                run_id=task.run_id,
                n_images=task.n_images,
                start_time=start_time,
                config_json=task.config_json,
                software=task.software,
                detector_type=task.detector_type,
                bit_depth=task.bit_depth,
                writer=self.number,
                n_writers=task.n_writers,
            ),
            overwrite=task.overwrite,
            roots=task.output_roots,
        )

    def _fill(self, file: ImageFile, epoch: int) -> None:
        """Write the run's images until its end, then close; every outcome is told to control."""
        error = ""
        try:
            for first, end in self._hand_overs(epoch):
                self._append(file, first, end)
            self._take_up_verdicts(file)
        except OSError as problem:
            error = str(problem)
        if self.given_up and self.words[Word.RUN_EPOCH] == epoch:
            self.own[Word.GIVEN_UP] = self._share_of(int(self.words[Word.RUN_KEPT])) - file.n_written
        complete = self.task.n_images > 0 and file.n_written == self._share_of(self.task.n_images)
        error = error or self.failure
        message = f"ERROR: {error}" if error else COMPLETED if complete else INTERRUPTED
        stop_time = time.time()
        try:
            file.close(
                state="FAILED" if error else "FINISHED",
                message=message,
                stop_time=stop_time,
                counters=self._counters(epoch),
            )
        except OSError as problem:
            error = error or str(problem)
        if error:
            self.control.tell(Failed(error, file.n_written))
        else:
            self.control.tell(Closed(file.n_written, stop_time))

    def _share_of(self, n_images: int) -> int:
        return share_of(n_images, self.number, self.task.n_writers)

    def _hand_overs(self, epoch: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of sequence numbers that are ready to be written, until the run's last."""
        words = self.words
        while words[Word.ACKNOWLEDGED] < epoch and not (self.given_up or self.failure):
            wait_for_change(words, Word.PUBLISHED, int(words[Word.PUBLISHED]), WAIT_S)
            self._listen()
        if words[Word.RUN_EPOCH] != epoch:
            return  # stopped before the receiver had even begun
        cursor, due = int(words[Word.RUN_FIRST]), 0.0
        most = max(1, min(HAND_OVER * self.task.n_writers, len(self.ring.slots) // QUEUEING_PARTS))
        while not self.given_up:
            published = int(words[Word.PUBLISHED])
            end = int(words[Word.RUN_END])
            if self.failure:  # the receiver is gone and will not end the run
                end = min(end, published)
            if cursor >= end:
                if self.failure or words[Word.RUN_JUDGED] == epoch:
                    return
                wait_for_change(words, Word.PUBLISHED, published, WAIT_S)
                self._listen()
                continue
            ready = min(published, end)
            if cursor < ready:
                early = due - time.monotonic()
                if early > 0 and ready < min(end, cursor + most):
                    time.sleep(early)
                    continue
                due = time.monotonic() + GATHER_S
                ready = min(ready, cursor + most)
                yield cursor, ready
                cursor = ready
                self.own[Word.CONSUMED] = cursor
            else:
                wait_for_change(words, Word.PUBLISHED, published, WAIT_S)
            self._listen()

    def _listen(self) -> None:
        """Take up what control has to say meanwhile."""
        while (order := self.control.hear(0)) is not None:
            match order:
                case Abort(reason):
                    self.failure = reason
                case Hurry():
                    self.given_up = True
        if self.control.gone and not self.failure:
            self.failure = "the service ended while the run was going on"

    def _append(self, file: ImageFile, first: int, end: int) -> None:
        """Write the images of a range of sequence numbers that are to be kept."""
        self._take_up_verdicts(file)
        sequences = np.arange(first, end)
        sequences = sequences[self.ring.slots["state"][sequences % len(self.ring.slots)] != SKIPPED]
        mine = (self.number - self._n_seen) % self.task.n_writers
        self._n_seen += len(sequences)
        sequences = sequences[mine :: self.task.n_writers]
        if not len(sequences):
            return
        slots = sequences % len(self.ring.slots)
        images = self.ring.slots[slots]
        file.append(
            self._pixels(slots),
            images["image_id"],
            images["status"].astype(np.uint64),
            images["n_missing"].astype(np.uint32),
            images["first_ns"] / 1e9,
            queueing=self.words[Word.PUBLISHED] - first > len(self.ring.slots) // QUEUEING_PARTS,
        )
        self._verdicts.note(sequences, file.n_written - len(sequences))
        # Of a clock that was set back meanwhile, nothing is known.
        self.own[Word.LATENCY_NS] = max(0, time.time_ns() - int(images["first_ns"][-1]))
        self.own[Word.COMPLETED] = file.n_written
        self._look_at_disk(file)

    def _take_up_verdicts(self, file: ImageFile) -> None:
        """Give images that are in the file already the status that has turned out since."""
        rows = self._verdicts.rows()
        if len(rows):
            file.restate(rows, OTHER_FORMAT)

    def _pixels(self, slots: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """Return the images of some slots: where they lie, or converted."""
        if self.converter is not None:
            images, n_invalid = self.converter.convert(self.ring, slots)
            self.own[Word.INVALID_PIXELS] += n_invalid
            return images
        shape, dtype = self.task.image_shape, np.dtype(self.task.dtype)
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        images = [self.ring.pixels[slot, :n_bytes].view(dtype).reshape(shape) for slot in slots]
        for slot, image in zip(slots, images, strict=True):
            if not self._mapped[slot]:
                map_pages(image)
                self._mapped[slot] = True
        return images

    def _look_at_disk(self, file: ImageFile) -> None:
        """Once a second, note the free space, and see that nobody has removed the file."""
        now = time.monotonic()
        if now - self._noted_s > 1.0:
            self._noted_s = now
            file.check_exists()
            with contextlib.suppress(OSError):  # the folder was renamed
                self.own[Word.DISK_FREE] = space_left(os.statvfs(os.path.dirname(self.path)))

    def _counters(self, epoch: int) -> dict[str, int]:
        """Return what the receiver counted for this run, for the file; nothing if it never began it."""
        words = self.words
        if words[Word.RUN_EPOCH] != epoch:
            return dict.fromkeys(COUNTERS, 0)
        return {
            "missing_packets": int(words[Word.RUN_MISSING]),
            "incomplete_images": int(words[Word.RUN_INCOMPLETE]),
            "dropped_images": int(words[Word.RUN_DROPPED] + words_of(words, Word.GIVEN_UP).sum()),
            "mismatched_images": int(words[Word.RUN_MISMATCHED]),
            "other_format_images": int(words[Word.RUN_OTHER_FORMAT]),
            "sparse_images": int(words[Word.RUN_SPARSE]),
            "invalid_pixels": int(words_of(words, Word.INVALID_PIXELS).sum()),
        }


def run_writer(channel: socket.socket, ring_descriptor: int, maps_descriptor: int | None = None) -> None:
    """Do one task, in a process of its own that is forked for it."""
    control = Lines(channel, TO_WRITER)
    control.introduce()
    task = control.hear(None)
    if task is None:
        return
    shape = RingShape(task.n_slots, task.n_modules, task.n_units, task.room_bytes)
    ring = shape.attach(ring_descriptor)
    try:
        control.tell(check_task(task))
    except DaqError as error:
        control.tell(FileRefused(str(error)))
        return
    order = control.hear(None)
    if not isinstance(order, Open):
        return

    def write(control: Lines, number: int, start_time: float, epoch: int) -> None:
        converter = None
        if maps_descriptor is not None:
            config = DaqConfig.parse(json.loads(task.config_json))
            converter = Converter(config, maps_descriptor, HAND_OVER)
        Writer(task, control, ring, converter, number).run(start_time, epoch)

    if task.n_writers > 1:
        Lead(task, control, ring, write).run(order.start_time, order.epoch)
    else:
        write(control, 0, order.start_time, order.epoch)


def check_task(task: WriterTask) -> Checked:
    """Become the user, look at the paths; what is found wrong here refuses the request.

    Raises
    ------
    DaqError  the user, the folder, one of the paths or the free space does not do
    """
    owner = find_owner(task.writer_user_id, writer_group=task.writer_group, min_user_id=task.min_user_id)
    become(owner)
    free = check_output(task.output_file, roots=task.output_roots, overwrite=task.overwrite)
    if task.n_writers > 1:
        for number in range(task.n_writers):
            path = part_path(task.output_file, number)
            check_output(path, roots=task.output_roots, overwrite=task.overwrite)
    image_bytes = task.image_shape[0] * task.image_shape[1] * np.dtype(task.dtype).itemsize
    low = check_space(free, task.n_images, image_bytes, compressed=task.compression != "none")
    return Checked(free, owner.warning, owner.note, low)
