"""Which packets of which frames came, without their pixels: what a recording has of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.detectors import format_of

Numbers = npt.NDArray[np.int64]


class PacketReader:
    """Reads the headers of datagrams that lie in memory one after the other.

    layout : of the config
    """

    def __init__(self, config: DaqConfig) -> None:
        self.layout = config.layout
        self._form = format_of(config)

    def headers(self, data: npt.NDArray[np.uint8], offsets: Numbers, lengths: Numbers) -> npt.NDArray[Any]:
        """Return (n,) of the format's header; 0 where a datagram is too short to have one.

        Parameters
        ----------
        data    : (bytes,) uint8
        offsets : (n,) int64, first byte of each datagram in it
        lengths : (n,) int64
        """
        kind = self._form.header
        headers = np.zeros((len(offsets), kind.itemsize), np.uint8)
        whole = lengths >= kind.itemsize
        headers[whole] = data[offsets[whole, None] + np.arange(kind.itemsize)]
        return headers.view(kind)[:, 0]

    def units(self, port: int, headers: npt.NDArray[Any], lengths: Numbers) -> tuple[Numbers, Numbers]:
        """Return first unit in the image's bitmap and number of units, of each datagram of a port."""
        here = self.layout.ports[port]
        first, n = self._form.units(headers, lengths, here)
        return first + int(here.first_unit), np.where(lengths >= self._form.header.itemsize, n, 0)


def each_unit(first: Numbers, n: Numbers) -> Numbers:
    """Return first[i], first[i] + 1 … first[i] + n[i] - 1 for all i, one after the other."""
    ends = np.cumsum(n)
    return np.repeat(first - (ends - n), n) + np.arange(int(n.sum()))
