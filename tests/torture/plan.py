"""What a run is to go through: made up by dice, the same again for the same seed and number."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daq_core.simulating.faults import IMAGE_FAULTS, PACKET_FAULTS, RUN_FAULTS, Chaos
from tests.torture.detector import DETECTORS, GIGAFROST_OTHER_ROWS, JUNGFRAU
from tests.torture.faults import Fault

CHANGES = 0.25  # of all rounds begin with another detector
RATES_HZ = (100.0, 200.0, 400.0)
FACES = ("REST", "CA", "CLI")


@dataclass(frozen=True)
class Plan:
    """What a run is to go through."""

    face: str
    n_images: int
    n_sent: int
    rate_hz: float
    chaos: Chaos
    faults: Sequence[tuple[Fault, float]]  # and when, in seconds from its begin
    stop_after_s: float | None
    stop_face: str
    sends_before: bool  # the detector is sending when the run is started
    rows_per_packet: int | None  # of a GigaFRoST, other than its own
    bit_depth: int | None  # of an Eiger, other than the config's

    def __str__(self) -> str:
        faults = ", ".join(f"{fault.name} at {when:.2f} s" for fault, when in self.faults) or "none"
        stop = (
            "" if self.stop_after_s is None else f", stopped at {self.stop_after_s:.2f} s by {self.stop_face}"
        )
        stop += ", sending before" if self.sends_before else ""
        stop += f", an Eiger at {self.bit_depth} bit" if self.bit_depth else ""
        return (
            f"{self.n_images} images by {self.face}, {self.n_sent} sent at {self.rate_hz:.0f} Hz, "
            f"chaos {self.chaos or 'none'}, faults {faults}{stop}"
        )


def new_detector(seed: int, number: int) -> Mapping[str, Any] | None:
    """Return the detector that a round begins with; None: that of the round before."""
    dice = random.Random(f"detector {seed} {number}")
    return dice.choice(DETECTORS) if dice.random() < CHANGES else None


def detector_before(seed: int, number: int) -> Mapping[str, Any]:
    """Return what the rounds before one have left, so that it is the same when it is taken by itself."""
    changes = (new_detector(seed, n) for n in range(number - 1, 0, -1))
    return next(filter(None, changes), JUNGFRAU)


def plan(dice: random.Random, faults: Sequence[Fault]) -> Plan:
    """Make up a run: some packet faults, some of processes and disks, an end or a stop."""
    kinds = dice.sample([*PACKET_FAULTS, *IMAGE_FAULTS, *RUN_FAULTS], dice.choice((0, 3, 5, 7)))
    values: dict[str, Any] = {"seed": dice.randrange(2**31)}
    for kind in kinds:
        values[kind] = 1 if kind in RUN_FAULTS else dice.choice((0.003, 0.02, 0.1))
    for kind in ("silent", "apart", "lag"):
        if kind in values:
            values[kind] = dice.randrange(2)
    n_images = dice.choice((1, 30, 60, 100))
    n_sent = n_images + dice.choice((0, 0, 20))
    rate = dice.choice(RATES_HZ)
    duration = n_sent / rate
    weights = [fault.weight for fault in faults]
    chosen = dice.choices(faults, weights, k=dice.choice((0, 1, 2, 2))) if faults else []
    return Plan(
        face=dice.choice(FACES) if dice.random() < 0.3 else "REST",
        n_images=n_images,
        n_sent=n_sent,
        rate_hz=rate,
        chaos=Chaos(**values),
        faults=sorted(((f, dice.uniform(-0.05, duration)) for f in chosen), key=lambda pair: pair[1]),
        stop_after_s=dice.uniform(0, duration) if dice.random() < 0.2 else None,
        stop_face=dice.choice(FACES),
        sends_before=dice.random() < 0.15,
        rows_per_packet=dice.choice((None, GIGAFROST_OTHER_ROWS)),
        bit_depth=dice.choice((None, None, 4, 8, 12, 16, 32)),
    )
