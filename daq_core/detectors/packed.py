"""Pixels of 4 and 12 bits, as they are packed on the wire, of any detector.

Two pixels of 4 bit share a byte, the first in the low nibble. Two of 12 bit share
three bytes: p0 = b0 | (b1 & 15) << 8, p1 = b1 >> 4 | b2 << 4. The kernels that
unpack them are in ``daq_core.assembling.placing``.

Source: contract of std_daq (12 bit as in GigaFRoST) and datagrams of the
manufacturer's virtual Eiger (low nibble first; the 12-bit ramp).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EDGE_BYTES = 4
"""Kept of each packet of 12-bit pixels, whose first and last pair its neighbours may have half of:
its first two bytes and its last two."""


def pack_pixels(pixels: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a frame's pixels, in the order of the wire: the inverse of unpacking.

    Parameters
    ----------
    pixels : (n,) values of `bits` bits, n even
    bits   : 4, 12, or the pixels' own size
    """
    even, odd = pixels[0::2], pixels[1::2]
    if bits == 4:
        return np.asarray((even & 15) | (odd & 15) << 4, np.uint8)
    if bits == 12:
        packed = np.stack([even & 0xFF, even >> 8 & 0xF | (odd & 0xF) << 4, odd >> 4 & 0xFF], axis=-1)
        return packed.astype(np.uint8).reshape(-1)
    return pixels.view(np.uint8)
