"""The valve of images: an Acquire opens it, and a run by valve keeps what comes through it alone.

A detector that streams all the time knows nothing of a client that takes images point by
point. The valve is in the receiver, where images are whole and in order, so that it lets
through exactly the number that was asked for. Images that were begun before it was opened, or
after it was closed, do not pass. A run that is not by valve keeps all images, whether it is open or shut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daq_core.ring.words import Word

if TYPE_CHECKING:
    from daq_core.pipeline.pipeline import Pipeline

SETTLE_S = 2.0  # for images that were begun before the valve was closed, to be whole or given up


@dataclass(frozen=True)
class Passed:
    """What the valve let through since it was opened."""

    n_images: int = 0
    newest_id: int | None = None
    newest_time: float | None = None  # when its first packet came, Unix seconds


class Valve:
    """The control process's side of it; a new ring (another config) begins with the valve shut."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._settled_by = 0.0

    def open(self, n_images: int = 0) -> None:
        """Let images through, as many as said; 0: until it is closed."""
        words = self._pipeline.words
        words[Word.VALVE_IMAGES] = n_images
        words[Word.VALVE] += 2 if self.is_open else 1

    def close(self) -> None:
        """Let no further image through; those that are begun still pass, when they are whole."""
        if self.is_open:
            self._settled_by = time.monotonic() + SETTLE_S
            self._pipeline.words[Word.VALVE] += 1

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since; with all its images through it still is."""
        return bool(self._pipeline.words[Word.VALVE] % 2)

    @property
    def is_followed(self) -> bool:
        """Whether the receiver has taken up the last :meth:`open` or :meth:`close`."""
        words = self._pipeline.words
        return bool(words[Word.VALVE_SEEN] == words[Word.VALVE])

    @property
    def is_settled(self) -> bool:
        """Whether nothing passes any more, after :meth:`close`: at once, or as soon as images are whole."""
        words = self._pipeline.words
        whole = self.is_followed and words[Word.PUBLISHED] >= words[Word.VALVE_END]
        return bool(whole) or time.monotonic() > self._settled_by

    @property
    def passed(self) -> Passed:
        """What came through since it was opened; nothing before the receiver has taken that up."""
        words = self._pipeline.words
        valve = int(words[Word.VALVE])
        opening = valve - (valve + 1) % 2
        n_images = int(words[Word.PASSED]) if words[Word.VALVE_SEEN] >= opening else 0
        if not n_images:
            return Passed()
        return Passed(n_images, int(words[Word.PASSED_ID]) % 2**64, int(words[Word.PASSED_NS]) / 1e9)
