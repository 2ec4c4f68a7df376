"""Which rows of a file have to change, because their images turned out to have another format.

The receiver puts down the sequence numbers of such images (``daq_core.assembling.verdicts``). A
writer looks at them before each hand-over and before it closes its file: what it has
written by then gets its new status there, and what it has not yet is in the ring with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daq_core.ring.ring import Ring
from daq_core.ring.words import Word


class LateVerdicts:
    """One writer's view of the list in the ring; made before its run begins."""

    def __init__(self, ring: Ring) -> None:
        n_slots = len(ring.slots)
        self._ring = ring
        self._n_seen = int(ring.words[Word.N_VERDICTS])
        self._sequences = np.full(n_slots, -1)  # of the newest image of each slot that was written,
        self._rows = np.zeros(n_slots, np.int64)  # and its row

    def note(self, sequences: npt.NDArray[np.int64], first_row: int) -> None:
        """Images of these sequence numbers were written, from that row on."""
        slots = sequences % len(self._rows)
        self._sequences[slots] = sequences
        self._rows[slots] = first_row + np.arange(len(sequences))

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the rows with a verdict that was not there at the last look, rising."""
        n = int(self._ring.words[Word.N_VERDICTS])
        new = np.arange(self._n_seen, n)
        self._n_seen = n
        listed = self._ring.words[Word.VERDICTS :]
        sequences = listed[new % len(listed)]
        slots = sequences % len(self._rows)
        return np.unique(self._rows[slots[self._sequences[slots] == sequences]])
