"""The kernels that put packets into images, by what the packets are like.

They are apart from ``daq_core.detectors`` because they bring numba. Control only
needs to know a detector's layout, and starts in a third of the time without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from daq_core.assembling.placing import gigafrost, sls
from daq_core.detectors import format_of

if TYPE_CHECKING:
    from daq_core.config import DaqConfig


class Kernels(NamedTuple):
    """What the receive loop does with the packets of a detector.

    take  : kernel of signature ``signatures.TAKE``: finds the images of packets, and marks the packets there
    put   : kernel of signature ``signatures.PUT``: copies the pixels of what was taken
    erase : kernel of signature ``signatures.ERASE``: zeroes the pixels of a unit that did not arrive
    """

    take: Callable[..., int]
    put: Callable[..., None]
    erase: Callable[..., None]


KERNELS = {
    "sls": Kernels(sls.take, sls.put, sls.erase),
    "gigafrost": Kernels(gigafrost.take, gigafrost.put, gigafrost.erase),
}


def kernels_of(config: DaqConfig) -> Kernels:
    """Return the kernels for a config's detector; InvalidRequest where it sends no UDP packets."""
    return KERNELS[format_of(config).wire]
