"""Keeps the status: every event goes through here, and what it changed is shown, counted and recorded.

Nobody else changes the status. The table of ``daq_core.state.acquisition`` has what may follow what.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from daq_core.amounts import counted
from daq_core.pipeline.counters import Meter
from daq_core.pipeline.pipeline import Pipeline
from daq_core.showing.journal import Journal
from daq_core.showing.snapshots import Board, RunNews
from daq_core.state.acquisition import step
from daq_core.state.events import Event, ReceiverLost
from daq_core.state.losses import in_words
from daq_core.state.status import Acquisition, AcquisitionState, DaqStatus

log = logging.getLogger(__name__)


class Keeper:
    """The status, which changes by events alone; the log of the runs that ended follows it."""

    def __init__(self, board: Board, pipeline: Pipeline, journal: Journal) -> None:
        self._board = board
        self._pipeline = pipeline
        self._journal = journal
        self._meter = Meter()

    @property
    def status(self) -> DaqStatus:
        """What is true at this moment."""
        return self._board.snapshot.status

    def apply(self, event: Event, news: RunNews | None = None) -> DaqStatus:
        """Apply an event, of a run with its news, and show what changed; a run that ended goes to the log.

        It goes there first: who sees READY may read the log next.

        Raises
        ------
        Busy
            It is not legal now; nothing changed.
        """
        before = self.status
        status = step(before, event, time.time())
        if news is not None:
            self._board.news = news
            status = _with_losses(status, news)
        if status == before:
            return status
        has_ended = is_taken(before) and not is_taken(status)
        if has_ended:
            self._board.news = replace(self._board.news, waits_for="")
        self._meter.n_written += _newly_written(before, status)
        if has_ended and not isinstance(event, ReceiverLost):
            self._board.show(status=status, **self._recorded(status.acquisition))
        else:  # after a lost receiver the file still closes, and then the run is recorded
            self._board.show(status=status)
        return status

    def note(self, news: RunNews) -> None:
        """Take up what a run has to show; at once where it lost something, else with the next snapshot."""
        self._board.news = news
        status = _with_losses(self.status, news)
        if status != self.status:
            self._board.show(status=status)

    def beat(self) -> None:
        """Show rates and counters as they are now; once a second."""
        self._board.log_trouble = self._journal.trouble
        self._board.show(stats=self._meter.rates(self._pipeline, time.monotonic()))

    def show_last(self, ended: Acquisition) -> None:
        """Show a run that ended before the service began, unless there has been another since."""
        last = self.status.acquisition
        if not last.running and (last.start_time or 0.0) < (ended.start_time or 0.0):
            self._board.show(status=replace(self.status, acquisition=ended))

    def record(self, ended: Acquisition | None = None) -> None:
        """Put an acquisition that has ended, the last one, into the log."""
        self._board.show(**self._recorded(ended or self.status.acquisition))

    def _recorded(self, ended: Acquisition) -> dict[str, Any]:
        """Put an acquisition into the log; returns what the snapshot shows of that."""
        self._journal.add(ended)
        _log_end(ended)
        return {"log": self._journal.newest_first(), "log_total": self._journal.total}


def is_taken(status: DaqStatus) -> bool:
    """Tell whether a run is going on, or accepted and about to."""
    return status.acquisition.running or status.pending is not None


def _with_losses(status: DaqStatus, news: RunNews) -> DaqStatus:
    """Let the acquisition say what its run lost so far; while it is not open yet, another's is shown."""
    if status.pending is not None:
        return status
    return replace(status, acquisition=replace(status.acquisition, losses=news.losses))


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
    n_images = counted(acquisition.n_write_completed, "image")
    if lost and acquisition.efficiency is not None:
        lost += f"; efficiency {acquisition.efficiency:.1%}"
    log.log(level, "%s: %s, %s%s", where, acquisition.message, n_images, f"; lost: {lost}" if lost else "")
