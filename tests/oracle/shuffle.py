"""Bitshuffle's transposition, one bit of all pixels after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def shuffled(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return (bytes,) uint8 of a block of (n,) unsigned pixels, n a multiple of eight."""
    bits = range(8 * pixels.itemsize)
    return np.concatenate([np.packbits(pixels >> bit & 1, bitorder="little") for bit in bits])
