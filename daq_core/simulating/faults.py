"""What can go wrong between a detector and this machine, made on purpose: which faults there are.

Written as ``seed=7,loss=0.01,restart=0.001``; the same again for the same seed.
What is done to the packets: :mod:`daq_core.simulating.fault_stage`.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Self

from daq_core.errors import InvalidRequest

PACKET_FAULTS = {
    "loss": "a packet is not sent",
    "duplicate": "a packet is sent twice",
    "late": "a packet is sent once more, up to 3 images later",
    "delay": "a packet is sent up to 3 images later",
    "reorder": "a packet changes its place within the image",
    "corrupt": "a byte of a packet's pixels is another one",
    "truncate": "a packet is cut short",
    "oversize": "a packet has up to 8 bytes too many",
    "number": "a packet's number is one that does not exist",
    "wrong_port": "a packet goes to the port of another module",
    "foreign": "another address sends it first, with other pixels",
    "stray": "a packet is sent once more, under a frame number far ahead",
}
"""A chance of 0 to 1 for each packet."""
IMAGE_FAULTS = {
    "burst": "up to 8 images are held back and sent at once",
    "last_first": "an image's last packet of each port comes first",
    "ahead": "the frame number jumps ahead, by up to 1000",
    "back": "the frame number jumps back, by up to 100",
    "restart": "the frame number begins again at 0",
    "rearm": "the detector is armed again: after 20 ms, 60 ms behind one image, its numbers begin anew",
}
"""A chance of 0 to 1 for each image."""
RUN_FAULTS = {
    "wrap": "1: the frame number passes its greatest, on to 0",
    "lose_last": "1: the last packet of the last image is lost",
    "silent": "number of a module that sends nothing",
    "apart": "number of a module whose frame numbers are 1000 higher",
    "lag": "number of a module that sends 80 images later",
}
SETTINGS = {
    "seed": "the same faults again for the same number",
    "foreign_address": "that other address, one of this machine",
}


@dataclass(frozen=True)
class Chaos:
    """Which faults, and how likely each is; all 0: none. See PACKET_FAULTS and the tables after it."""

    seed: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    oversize: float = 0.0
    number: float = 0.0
    wrong_port: float = 0.0
    foreign: float = 0.0
    stray: float = 0.0
    burst: float = 0.0
    last_first: float = 0.0
    ahead: float = 0.0
    back: float = 0.0
    restart: float = 0.0
    rearm: float = 0.0
    wrap: int = 0
    lose_last: int = 0
    silent: int | None = None
    apart: int | None = None
    lag: int | None = None
    foreign_address: str = "127.0.0.2"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``seed=7,loss=0.01``.

        Raises
        ------
        InvalidRequest
            A name is not known or comes twice, or a value is none for it.
        """
        values: dict[str, Any] = {}
        for word in filter(None, map(str.strip, text.split(","))):
            name, is_given, value = map(str.strip, word.partition("="))
            if name not in ALL:
                near = difflib.get_close_matches(name, ALL, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ALL)}."
                raise InvalidRequest(f"chaos {word!r}: there is no {name!r}; {hint}")
            if name in values:
                raise InvalidRequest(f"chaos {name} is given twice.")
            if not is_given or not value:
                raise InvalidRequest(f"chaos {name} needs a value, as in {name}={_EXAMPLES.get(name, 0.01)}.")
            values[name] = _value(name, value)
        return cls(**values)

    def __str__(self) -> str:
        """Write it as :meth:`parse` reads it."""
        changed = [f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        return ",".join(f"{f.name}={getattr(self, f.name)}" for f in changed)


ALL = (*SETTINGS, *PACKET_FAULTS, *IMAGE_FAULTS, *RUN_FAULTS)
assert set(ALL) == {field.name for field in dataclasses.fields(Chaos)}
_NUMBERS = ("seed", "silent", "apart", "lag")
_EXAMPLES = {
    "wrap": 1,
    "lose_last": 1,
    "silent": 0,
    "apart": 0,
    "lag": 0,
    "seed": 7,
    "foreign_address": "127.0.0.2",
}


def _value(name: str, text: str) -> float | int | str:
    """Read the value of one fault or setting, or say what it should be."""
    try:
        if name == "foreign_address":
            return text
        if name in _NUMBERS:
            if (number := int(text)) < 0:
                raise ValueError
            return number
        if name in RUN_FAULTS:
            return {"0": 0, "1": 1}[text]
        if not 0 <= (chance := float(text)) <= 1:  # NaN is not, either
            raise ValueError
    except (ValueError, KeyError):
        wanted = "a chance of 0 to 1"
        if name in _NUMBERS:
            wanted = "a whole number of 0 or more"
        elif name in RUN_FAULTS:
            wanted = "0 or 1"
        raise InvalidRequest(f"chaos {name} must be {wanted}, got {text!r}.") from None
    else:
        return chance


def explained() -> str:
    """Return every fault and setting with what it means, a line each, for a help text."""
    kinds = (
        ("For each packet, a chance of 0 to 1:", PACKET_FAULTS),
        ("For each image, a chance of 0 to 1:", IMAGE_FAULTS),
        ("For all of it:", RUN_FAULTS | SETTINGS),
    )
    paragraphs = []
    for title, faults in kinds:
        lines = [title, *(f"  {name:<16} {meaning}" for name, meaning in faults.items())]
        paragraphs.append("\b\n" + "\n".join(lines))  # \b: not wrapped
    return "\n\n".join(paragraphs)
