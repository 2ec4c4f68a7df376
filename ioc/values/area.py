"""The setpoints of ``cam1:`` and ``HDF1:``, and where an Acquire stands.

Immutable, replaced whole; ``ioc.commands.area_detector`` changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daq_core.pipeline.valve import Passed
from daq_core.state.status import WriteRequest


@dataclass(frozen=True)
class Area:
    """Setpoints of ``cam1:`` and ``HDF1:``, and what is true of them."""

    num_images: int = 1
    image_mode: str = "Multiple"
    wait_for_plugins: str = "No"
    file_path: str = ""
    file_name: str = ""
    file_number: int = 0
    file_template: str = "%s%s_%6.6d.h5"
    auto_increment: str = "Yes"
    create_directory: int = 0
    num_capture: int = 1
    kept: Mapping[str, Any] = field(default_factory=dict)  # those without an effect, by PV

    folder: str | None = None  # FilePath with its last slash, once it was looked at
    folder_trouble: str = ""  # why no file can be written there
    refused: str = ""  # why the last Capture or WriteFile was; "" after one that was not
    refused_at: float = 0.0  # Unix seconds

    phase: str = "Idle"  # of the last Acquire, as DetectorState names it
    n_acquired: int = 0  # images since the last Acquire began
    acquire_ended: float = 0.0  # Unix seconds
    n_passed: int = 0  # images of all Acquires
    newest: Passed = field(default_factory=Passed)  # what the newest Acquire with images let through
    passed_per_second: float = 0.0
    counted_from: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    run_by_valve: WriteRequest | None = None  # the last file that was begun, if it takes what Acquire lets in

    def array_counter(self, pv: str) -> int:
        """Return an ArrayCounter: what was put there, and the images that Acquire let through since."""
        value, then = self.counted_from.get(pv, (0, 0))
        return wrapped(value + self.n_passed - then)


def wrapped(n: int) -> int:
    """Return a count as areaDetector shows it, in 31 bits: what comes after the largest is 0."""
    return n if n < 2**31 else n % 2**31
