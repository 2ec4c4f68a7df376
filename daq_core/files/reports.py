"""What is said of a file after it was looked at, to be mended or only to be recorded; needs no HDF5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["repaired", "intact", "refused", "open elsewhere", "failed"]


@dataclass(frozen=True)
class RecordedEnd:
    """How a file says that its run ended."""

    run_id: str
    state: str
    message: str
    losses: dict[str, int] | None = None  # as in ``daq_core.state.losses``; None where its writer was killed


@dataclass(frozen=True)
class RepairReport:
    """What was found and done; ``message`` is one line for the user.

    ``repaired``        it is readable now
    ``intact``          it needed nothing, and was not touched
    ``refused``         it cannot be repaired here, and was not touched
    ``open elsewhere``  not touched either; when somebody has closed it, it can be
    ``failed``          an error came between, of the file system or of HDF5
    """

    path: str
    outcome: Outcome
    n_images: int | None  # in the file; None where that is not known
    message: str
    end: RecordedEnd | None = None  # None where the file does not say

    @property
    def is_readable(self) -> bool:
        """Whether people can open the file now."""
        return self.outcome in ("repaired", "intact")
