"""Modules out of step, in sentences: one that lags, counts from elsewhere, or was armed again alone.

The receiver keeps what each port's frame numbers did (``Ring.arms``); here they are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.ring.words import Arm

PERSISTS_NS = 500_000_000  # ports are read one after the other: less says nothing
ADVICE = "their packets make no images together; was it started, triggered or armed apart from them?"


def out_of_step(arms: npt.NDArray[np.int64], modules: npt.NDArray[Any], window: int) -> list[str]:
    """Return a sentence for each module whose numbers are not the others'.

    Parameters
    ----------
    arms    : (ports, Arm.COUNT) int64, of the ring
    modules : (ports,) int, the module of each port
    window  : images that may be open at once: so far apart is no matter
    """
    if behind := {int(m): int(n) for m, n in zip(modules, arms[:, Arm.BEHIND], strict=True) if n > 0}:
        return [
            f"module {module} is {_rounded(distance)} images behind the others, which do not wait so long: "
            f"{ADVICE}"
            for module, distance in behind.items()
        ]
    heard = np.flatnonzero((arms[:, Arm.IS_HEARD] == 1) & (arms[:, Arm.IS_FRESH] == 0))
    settled = [int(port) for port in heard if arms[port, Arm.DOUBT] == 0]
    if len(settled) < 2:
        return []
    numbers = {port: int(arms[port, Arm.NEWEST]) % 2**64 for port in settled}
    present = max(int(arms[port, Arm.ARM]) for port in settled)
    those = sorted((numbers[port], port) for port in settled if arms[port, Arm.ARM] == present)
    reference, other = those[(len(those) - 1) // 2]
    entered = int(arms[other, Arm.ENTERED_NS])
    said: dict[int, str] = {}
    for port, number in numbers.items():
        is_late = arms[port, Arm.ARM] != present
        if is_late and arms[port, Arm.HEARD_NS] - entered < PERSISTS_NS:
            continue
        distance = number - reference
        if abs(distance) > window:
            way = "ahead of" if distance > 0 else "behind"
            said[int(modules[port])] = (
                f"module {modules[port]} counts {_rounded(abs(distance))} images {way} "
                f"module {modules[other]}: {ADVICE}"
            )
    return list(said.values())


def _rounded(distance: int) -> int:
    """Keep two digits: a distance that wavers shall not be a new warning each time."""
    step: int = 10 ** max(0, len(str(distance)) - 2)
    return round(distance / step) * step if distance < 10**15 else distance // step * step
