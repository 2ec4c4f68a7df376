"""The snapshot that everybody sees, and whoever waits for the next one."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from daq_core.files.output import UNKNOWN
from daq_core.pipeline.counters import read_counters, read_losses, read_warnings
from daq_core.pipeline.pipeline import Pipeline
from daq_core.state.losses import NO_LOSSES, Losses
from daq_core.state.status import DaqStatus, Health, Snapshot

log = logging.getLogger(__name__)

Listener = Callable[[Snapshot], None]


@dataclass(frozen=True)
class RunNews:
    """What there is to show of the present or the last run besides its state."""

    warning: str = ""  # of the user whose files these are
    low_space: str = ""  # of the file system
    free_bytes: int = UNKNOWN  # where it is written; between two runs, where the next one would be
    waits_for: str = ""  # what is amiss when no image comes; it is in the log already
    losses: Losses = NO_LOSSES


class Board:
    """Holds the newest snapshot, replaces it whole, and tells the listeners of each.

    What the ring counts (counters, warnings) is read anew for every snapshot.
    """

    def __init__(self, snapshot: Snapshot, pipeline: Pipeline) -> None:
        self.snapshot = snapshot
        self.news = RunNews()
        self.log_trouble = ""  # why the acquisition log is not on the disk
        self.config_trouble = ""  # why the config in use is not the one that was wanted
        self.unsaved = ""  # why the config is not kept for the next start
        self._pipeline = pipeline
        self._listeners: list[Listener] = []
        self._changed = asyncio.Event()
        self._warned: set[str] = set()  # without their numbers

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every snapshot from now on; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def change(self) -> None:
        """Wait for the next snapshot."""
        await self._changed.wait()

    def show(self, **changes: Any) -> None:
        """Replace the snapshot and tell everybody."""
        status: DaqStatus = changes.get("status", self.snapshot.status)
        self.snapshot = replace(
            self.snapshot,
            time=time.time(),
            counters=read_counters(self._pipeline),
            health=Health(
                receiver_up=not status.receiver_down,
                restarts=self._pipeline.n_restarts,
                disk_free_bytes=self.news.free_bytes or None,
                warning=self._warn(),
                low_space=self.news.low_space,
                config=" ".join(filter(None, (self.config_trouble, self.unsaved))),
                waiting=self.news.waits_for,
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

    def _warn(self) -> str:
        """Return all there is to warn of, and log what is new of it."""
        pipeline = self._pipeline
        ours = (
            self.config_trouble,
            self.unsaved,
            self.news.warning,
            self.news.low_space,
            self.log_trouble,
            pipeline.maps_warning,
        )
        warnings = [*filter(None, ours), *read_warnings(pipeline, read_losses(pipeline))]
        for warning in warnings:
            if _without_numbers(warning) not in self._warned:
                log.warning("%s", warning)
        self._warned = set(map(_without_numbers, warnings))
        return "; ".join(filter(None, (self.news.waits_for, *warnings)))


def _without_numbers(warning: str) -> str:
    """Return what a warning says whatever it counts: the log has it once, not each time the count grows."""
    return re.sub(r"\d+", "", warning)
