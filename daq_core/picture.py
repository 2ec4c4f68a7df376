"""The picture the simulated detectors see: powder diffraction rings, the shadow of a beam stop, noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RINGS = (0.16, 0.24, 0.33, 0.41, 0.55, 0.68, 0.86)
"""Radii, in parts of half the image's diagonal."""
RING_WIDTH = 0.008
BEAM_STOP_RADIUS = 0.06
BRIGHTEST = 0.7
"""Of the pixel type's range: the brightest pixels use the top bit, so that a wrong sign would show."""


def diffraction_rings(shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[np.float32]:
    """Return (H, W) float32: the mean counts of each pixel, without noise."""
    height, width = shape
    half_diagonal = float(np.hypot(height, width)) / 2
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / half_diagonal
    x = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / half_diagonal
    mean = _radial_profile()[np.minimum(np.hypot(x, y) * 1000, 1000).astype(np.intp)]
    mean[np.hypot(x, y) < BEAM_STOP_RADIUS] = 0.005
    mean[(np.abs(x) < BEAM_STOP_RADIUS / 4) & (y > 0)] = 0.005  # the arm that holds it
    return np.asarray(mean * np.float32(BRIGHTEST * np.iinfo(dtype).max), np.float32)


def _radial_profile() -> npt.NDArray[np.float32]:
    """Return (1001,) float32: brightness, at most 1, over the radius in thousandths."""
    radius = np.linspace(0, 1, 1001)
    brightness = 0.05 + 0.3 * np.exp(-radius / 0.15)
    for ring in RINGS:
        brightness += np.exp(-(((radius - ring) / RING_WIDTH) ** 2) / 2 - ring)
    return np.asarray(brightness / brightness.max(), np.float32)


def expose(
    mean: npt.NDArray[np.float32], dtype: np.dtype[Any], random: np.random.Generator
) -> npt.NDArray[Any]:
    """Return (H, W) `dtype`: counts with the noise of counting photons."""
    counts = random.standard_normal(mean.shape, np.float32)
    counts *= np.sqrt(mean)
    counts += mean
    np.clip(np.rint(counts, out=counts), 0, np.float32(np.iinfo(dtype).max * 0.99), out=counts)
    return counts.astype(dtype)
