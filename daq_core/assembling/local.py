"""The receive loop's own memory: what its threads know of a config and of what they have seen."""

from __future__ import annotations

from typing import NamedTuple

REMEMBERED_DROPS = 64
REMEMBERED_PROOFS = 64
REMEMBERED = 4096  # images that were opened; a power of two


class _Local(NamedTuple):
    """Index of each word of the receive loop's own memory, (Local.COUNT,) int64."""

    WINDOW: int = 0  # most images open at once
    TIMEOUT_NS: int = 1
    UNITS: int = 2  # of a complete image
    DROP_INCOMPLETE: int = 3  # 1: incomplete images are not written
    ID_SOURCE: int = 4  # 0 frame number, 1 bunch id as double, 2 bunch id as integer
    FLOOR: int = 5  # oldest sequence number whose slot must not be reused
    ARMS: int = 6  # the newest arm that a port has entered, be it in doubt
    CONFIRMED: int = 7  # the newest of which no port that has entered it is in doubt
    N_DROPS: int = 8  # images refused since a port was armed again
    CLAIMED: int = 9  # units that the last claim marked
    N_EARLY: int = 10  # frames proven to have another format whose image is not known yet (``verdicts``)
    JUDGED_FROM: int = 11  # monotonic time of the newest packet in a kept image of the run
    UNITS_PER_PACKET: int = 12  # of a full one, as the sender was seen to fill it; 0: as the layout says
    WANTS_ROOM: int = 15  # 1: an image waits until the oldest has left the window
    DROPS: int = 16  # the frame numbers of the refused, the last of them, to count each once
    EARLY: int = 16 + REMEMBERED_DROPS  # those frames: number, and sequence number of the next image then
    KNOWN: int = 16 + REMEMBERED_DROPS + 2 * REMEMBERED_PROOFS  # number and arm of each image that was opened
    COUNT: int = 16 + REMEMBERED_DROPS + 2 * REMEMBERED_PROOFS + 2 * REMEMBERED


Local = _Local()
