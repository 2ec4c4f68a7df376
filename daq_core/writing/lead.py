"""Several writers for one run: the process control talks to leads, and writes nothing itself.

It checks the paths, forks a writer for each part, hears from all of them, passes
on what control says, and makes the virtual file when they are done. To control it
is a writer like any other (``daq_core.writing.writer`` has the conversation). Its writers
end with it: one that is killed takes them along.

A writer that fails or is lost ends the run: the others write what has come in
so far, close, and their files and what can be saved of the lost one are put together
by the process that mends (:func:`daq_core.files.parts.repair_run`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from daq_core.files.layout import FINISHED
from daq_core.files.parts import make_virtual_file, part_path
from daq_core.linux.libc import be_named, end_with
from daq_core.linux.urgency import be_usual
from daq_core.processes.lines import Lines
from daq_core.ring.ring import Ring
from daq_core.ring.words import WRITER_WORDS, Word
from daq_core.writing.task import FROM_WRITER, TO_WRITER, Abort, Closed, Failed, Opened, WriterTask

log = logging.getLogger(__name__)


Write = Callable[[Lines, int, float, int], None]
"""(lead, number of the writer, start time, epoch): write a part of the run, telling the lead how it goes."""


@dataclass
class _Writer:
    """A writer process as its lead sees it: the channel to it, and its last word."""

    number: int
    channel: Lines
    said: Closed | Failed | None = None
    opened: bool = False

    @property
    def ended(self) -> bool:
        return self.channel.gone or self.said is not None


class Lead:
    """The writers of one run, from their first fork to the virtual file."""

    def __init__(self, task: WriterTask, control: Lines, ring: Ring, write: Write) -> None:
        self.task = task
        self.control = control
        self.words = ring.words
        self._write = write
        self._writers: list[_Writer] = []
        self._failure = ""

    def run(self, start_time: float, epoch: int) -> None:
        """Take the run's images and close all files; every outcome is told to control."""
        for number in range(self.task.n_writers):
            self._fork(number, start_time, epoch)
        while not all(writer.opened or writer.ended for writer in self._writers):
            self._listen()
        if not all(writer.opened for writer in self._writers):
            self._take_back()
            return
        if self.task.overwrite:  # a virtual file of another run would show images of this one
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.task.output_file)
        self.control.tell(Opened())
        be_usual()
        while not all(writer.ended for writer in self._writers):
            self._listen()
        self._close()

    def _fork(self, number: int, start_time: float, epoch: int) -> None:
        ours, theirs = socket.socketpair()
        lead = os.getpid()
        if os.fork() == 0:
            if not end_with(lead):
                os._exit(1)
            be_named(b"daq-writer-%d" % number)
            # Only this process may hold these: their end says that the other side is gone.
            self.control.close()
            for writer in self._writers:
                writer.channel.close()
            ours.close()
            try:
                self._write(Lines(theirs, TO_WRITER), number, start_time, epoch)
            except Exception:
                log.exception("writer %d of %s failed", number, self.task.output_file)
            finally:
                logging.shutdown()
                os._exit(0)  # no clean-up of libraries, as in daq_core.processes.forking
        theirs.close()
        self._writers.append(_Writer(number, Lines(ours, FROM_WRITER)))

    def _listen(self) -> None:
        """Wait until somebody says something or ends, and take it up."""
        alive = [writer for writer in self._writers if not writer.ended]
        channels = [writer.channel for writer in alive]
        if not self.control.gone:
            channels.append(self.control)
        ready, _, _ = select.select(channels, [], [])
        if self.control in ready:
            self._pass_on()
        for writer in alive:
            if writer.channel in ready:
                self._hear(writer)

    def _pass_on(self) -> None:
        while (order := self.control.hear(0)) is not None:
            for writer in self._writers:
                writer.channel.tell(order)
        if self.control.gone:
            self._end_all("the service ended while the run was going on")

    def _hear(self, writer: _Writer) -> None:
        while (message := writer.channel.hear(0)) is not None:
            if isinstance(message, Opened):
                writer.opened = True
            else:
                writer.said = message
        if writer.channel.gone and writer.said is None:
            self._fail(f"writer lost: process of {part_path(self.task.output_file, writer.number)} ended")
        elif isinstance(writer.said, Failed):
            self._fail(writer.said.reason)

    def _fail(self, reason: str) -> None:
        """Note the first failure, and have the others close what they have."""
        if not self._failure:
            self._failure = reason
            self._end_all(reason)

    def _end_all(self, reason: str) -> None:
        for writer in self._writers:
            writer.channel.tell(Abort(reason))

    def _take_back(self) -> None:
        """A part could not be created: have none at all."""
        for writer in self._writers:
            writer.channel.close()  # they end by that
        for writer in self._writers:
            if writer.opened:
                with contextlib.suppress(OSError):
                    os.unlink(part_path(self.task.output_file, writer.number))
        self.control.tell(Failed(self._failure, 0))

    def _close(self) -> None:
        """Make the file over all parts and tell how the run ended."""
        n_completed = sum(map(self._n_completed, self._writers))
        if not self._failure:
            try:
                end = make_virtual_file(
                    self.task.output_file,
                    detector_name=self.task.detector_name,
                    roots=self.task.output_roots,
                )
            except OSError as error:
                self._failure = str(error)
            else:
                if end.state != FINISHED:  # all were closed, but one cannot be read
                    self._failure = end.message.removeprefix("ERROR: ")
        if self._failure:
            self.control.tell(Failed(self._failure, n_completed))
        else:
            closed = (w.said for w in self._writers if isinstance(w.said, Closed))
            self.control.tell(Closed(n_completed, max(said.stop_time for said in closed)))

    def _n_completed(self, writer: _Writer) -> int:
        if writer.said is not None:
            return writer.said.n_completed
        return int(self.words[Word.COMPLETED + writer.number * WRITER_WORDS])
