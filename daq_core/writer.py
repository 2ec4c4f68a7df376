"""The writer process: one short-lived fork per run takes images from the ring into a file.

It is forked by ``daq_core.forks`` within milliseconds. One process a run, because
a user id is a process's, a sick file system may hang one for good, and a failed
close poisons HDF5.

A writer talks over its own socket, one JSON object a line::

    control                         writer
    {"task": …}                ->
                               <-   {"pid": n}
                               <-   {"checked": {"free_bytes": …, "warning": …,
                                                  "low_space": …}} or {"refused": "why"}
    {"open": {"start_time": …,
              "epoch": n}}     ->
                               <-   {"opened": {}} or {"failed": {"reason": …, "n_completed": 0}}
    {"hurry": "why"}           ->        end now: images still in the ring are given up
    {"abort": "why"}           ->        the receiver is gone: write what is published, end as FAILED
                               <-   {"closed": {"n_completed": …, …}} or {"failed": …}

When the socket closes, control is gone: the writer drains, closes and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.acquisition import COMPLETED, INTERRUPTED
from daq_core.compression import Compressor
from daq_core.config import DaqConfig
from daq_core.conversion import Converter
from daq_core.errors import DaqError
from daq_core.file_layout import COUNTERS, RunMetadata
from daq_core.hdf5 import ImageFile
from daq_core.output import check_output, check_space
from daq_core.repair import RepairReport, repair
from daq_core.ring import SKIPPED, Ring, RingShape, Word, map_pages, wait_for_change
from daq_core.user import become, find_owner

log = logging.getLogger(__name__)

HAND_OVER = 32  # most images between two flushes; fewer when the writer keeps up
GATHER_S = (
    0.005  # hand-overs begin so far apart, unless one is full or the last: half of their CPU time is saved
)
WAIT_S = 0.02  # how long a missed wake-up or word from control can go unnoticed


@dataclass(frozen=True)
class WriterTask:
    """Everything a writer needs to know of its run."""

    output_file: str
    n_images: int  # 0: until stopped
    run_id: int | str
    image_shape: tuple[int, int]
    dtype: str
    detector_name: str
    detector_type: str
    bit_depth: int
    config_json: str
    software: str
    n_slots: int
    n_modules: int
    n_units: int
    room_bytes: int
    writer_user_id: int
    writer_group: int | None
    min_user_id: int
    output_roots: tuple[str, ...]
    overwrite: bool
    compression: str = "none"
    compression_threads: int = 0
    repair: bool = False  # mend the file that a lost writer left behind, and write nothing
    failure: str = ""  # with `repair`: the message that the run ended with, if it is known

    def to_json(self) -> str:
        return json.dumps({"task": asdict(self)})


class Control:
    """The control process as the writer sees it: lines of JSON on a socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pending = b""
        self.gone = False

    def tell(self, **message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Return the next message; None after the timeout or when control is gone."""
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._channel], [], [], timeout_s)
            if not ready:
                return None
            try:
                received = self._channel.recv(1 << 20)
            except ConnectionResetError:
                received = b""
            if not received:
                self.gone = True
                return None
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class Writer:
    """One run, from the check of its path to the closed file."""

    def __init__(
        self, task: WriterTask, control: Control, ring: Ring, converter: Converter | None = None
    ) -> None:
        self.task = task
        self.control = control
        self.ring = ring
        self.converter = converter
        self.words = ring.words
        self.failure = ""  # why the run ends as FAILED although the file is fine
        self.given_up = False  # do not wait for the rest of the images
        self._mapped = np.zeros(len(ring.slots), np.bool_)  # slots whose pages this process has
        self._noted_s = 0.0  # when the free space was looked at last

    def run(self) -> None:
        try:
            warning = self._check()
        except DaqError as error:
            self.control.tell(refused=str(error))
            return
        self.control.tell(checked=warning)
        order = self.control.hear(None)
        if order is None or "open" not in order:
            return
        try:
            file = self._create(order["open"]["start_time"])
        except OSError as error:
            self.control.tell(failed={"reason": str(error), "n_completed": 0})
            return
        self.words[Word.COMPLETED] = 0
        self.words[Word.GIVEN_UP] = 0
        self.words[Word.INVALID_PIXELS] = 0
        self.control.tell(opened={})
        self._fill(file, order["open"]["epoch"])

    def _check(self) -> dict[str, Any]:
        """Become the user, look at the path; what is found wrong here refuses the request."""
        task = self.task
        owner = find_owner(task.writer_user_id, writer_group=task.writer_group, min_user_id=task.min_user_id)
        become(owner)
        free = check_output(task.output_file, roots=task.output_roots, overwrite=task.overwrite)
        image_bytes = task.image_shape[0] * task.image_shape[1] * np.dtype(task.dtype).itemsize
        n_images = task.n_images if task.compression == "none" else 0  # nobody knows how small they become
        low = check_space(free, n_images, image_bytes)
        self.words[Word.DISK_FREE] = free
        return {"free_bytes": free, "warning": owner.warning, "low_space": low}

    def _create(self, start_time: float) -> ImageFile:
        task = self.task
        dtype = np.dtype(task.dtype)
        compressor = None
        if task.compression != "none":
            compressor = Compressor(task.compression, task.image_shape, dtype, task.compression_threads)
        return ImageFile.create(
            task.output_file,
            shape=task.image_shape,
            dtype=dtype,
            detector_name=task.detector_name,
            compressor=compressor,
            run=RunMetadata(
                run_id=task.run_id,
                n_images=task.n_images,
                start_time=start_time,
                config_json=task.config_json,
                software=task.software,
                detector_type=task.detector_type,
                bit_depth=task.bit_depth,
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
        except OSError as problem:
            error = str(problem)
        if self.given_up and self.words[Word.RUN_EPOCH] == epoch:
            self.words[Word.GIVEN_UP] = self.words[Word.RUN_KEPT] - file.n_written
        complete = 0 < self.task.n_images == file.n_written
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
            self.control.tell(failed={"reason": error, "n_completed": file.n_written})
        else:
            self.control.tell(closed={"n_completed": file.n_written, "stop_time": stop_time})

    def _hand_overs(self, epoch: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of sequence numbers that are ready to be written, until the run's last."""
        words = self.words
        while words[Word.ACKNOWLEDGED] < epoch and not (self.given_up or self.failure):
            wait_for_change(words, Word.PUBLISHED, int(words[Word.PUBLISHED]), WAIT_S)
            self._listen()
        if words[Word.RUN_EPOCH] != epoch:
            return  # stopped before the receiver had even begun
        cursor, due = int(words[Word.RUN_FIRST]), 0.0
        while not self.given_up:
            published = int(words[Word.PUBLISHED])
            end = int(words[Word.RUN_END])
            if self.failure:  # the receiver is gone and will not end the run
                end = min(end, published)
            if cursor >= end:
                return
            ready = min(published, end)
            if cursor < ready:
                early = due - time.monotonic()
                if early > 0 and ready < min(end, cursor + HAND_OVER):
                    time.sleep(early)
                    continue
                due = time.monotonic() + GATHER_S
                ready = min(ready, cursor + HAND_OVER)
                yield cursor, ready
                cursor = ready
                words[Word.CONSUMED] = cursor
            else:
                wait_for_change(words, Word.PUBLISHED, published, WAIT_S)
            self._listen()

    def _listen(self) -> None:
        """Take up what control has to say meanwhile."""
        while (order := self.control.hear(0)) is not None:
            if "abort" in order:
                self.failure = order["abort"]
            if "hurry" in order:
                self.given_up = True
        if self.control.gone and not self.failure:
            self.failure = "the service ended while the run was going on"

    def _append(self, file: ImageFile, first: int, end: int) -> None:
        """Write the images of a range of sequence numbers that are to be kept."""
        slots = np.arange(first, end) % len(self.ring.slots)
        slots = slots[self.ring.slots["state"][slots] != SKIPPED]
        if not len(slots):
            return
        images = self.ring.slots[slots]
        file.append(
            self._pixels(slots),
            images["image_id"],
            images["status"].astype(np.uint64),
            images["n_missing"].astype(np.uint32),
            images["first_ns"] / 1e9,
        )
        # Of a clock that was set back meanwhile, nothing is known.
        self.words[Word.LATENCY_NS] = max(0, time.time_ns() - int(images["first_ns"][-1]))
        self.words[Word.COMPLETED] = file.n_written
        self._look_at_disk(file)

    def _pixels(self, slots: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """Return the images of some slots: where they lie, or converted."""
        if self.converter is not None:
            images, n_invalid = self.converter.convert(self.ring, slots)
            self.words[Word.INVALID_PIXELS] += n_invalid
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
                space = os.statvfs(os.path.dirname(self.task.output_file))
                self.words[Word.DISK_FREE] = space.f_bavail * space.f_frsize

    def _counters(self, epoch: int) -> dict[str, int]:
        """Return what the receiver counted for this run, for the file; nothing if it never began it."""
        words = self.words
        if words[Word.RUN_EPOCH] != epoch:
            return dict.fromkeys(COUNTERS, 0)
        return {
            "missing_packets": int(words[Word.RUN_MISSING]),
            "incomplete_images": int(words[Word.RUN_INCOMPLETE]),
            "dropped_images": int(words[Word.RUN_DROPPED] + words[Word.GIVEN_UP]),
            "mismatched_images": int(words[Word.RUN_MISMATCHED]),
            "invalid_pixels": int(words[Word.INVALID_PIXELS]),
        }


def run_writer(channel: socket.socket, ring_descriptor: int, maps_descriptor: int | None = None) -> None:
    """Do one task, in a process of its own that is forked for it."""
    control = Control(channel)
    control.tell(pid=os.getpid())
    order = control.hear(None)
    if order is None:
        return
    task = WriterTask(**order["task"] | {"image_shape": tuple(order["task"]["image_shape"])})
    if task.repair:
        try:
            become(find_owner(task.writer_user_id, writer_group=task.writer_group))
            report = repair(task.output_file, failure=task.failure, roots=task.output_roots)
            control.tell(repaired=report.message, outcome=report.outcome, end=_end_of(report))
        except (OSError, DaqError) as error:
            control.tell(failed={"reason": str(error), "n_completed": 0})
        return
    ring = RingShape(task.n_slots, task.n_modules, task.n_units, task.room_bytes)
    converter = None
    if maps_descriptor is not None:
        converter = Converter(DaqConfig.parse(json.loads(task.config_json)), maps_descriptor, HAND_OVER)
    Writer(task, control, ring.attach(ring_descriptor), converter).run()


def _end_of(report: RepairReport) -> dict[str, Any] | None:
    """Return how a file says its run ended, and its images, for ``daq_core.interrupted``."""
    return None if report.end is None else asdict(report.end) | {"n_images": report.n_images}
