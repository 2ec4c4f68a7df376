"""The picture the simulated detectors see: diffraction rings, a beam stop, module numbers, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from daq_core.detectors import Layout

RINGS = (0.16, 0.24, 0.33, 0.41, 0.55, 0.68, 0.86)
"""Radii, in parts of half the image's diagonal."""
RING_WIDTH = 0.008
BEAM_STOP_RADIUS = 0.06
SHADOW = 0.005
BRIGHTEST = 0.7
"""Of a pixel's range: the brightest pixels use the top bit, so that a wrong sign would show."""

GLYPHS = {
    "0": "### #.# #.# #.# ###",
    "1": ".#. ##. .#. .#. ###",
    "2": "### ..# ### #.. ###",
    "3": "### ..# .## ..# ###",
    "4": "#.# #.# ### ..# ..#",
    "5": "### #.. ### ..# ###",
    "6": "### #.. ### #.# ###",
    "7": "### ..# .#. .#. .#.",
    "8": "### #.# ### #.# ###",
    "9": "### #.# ### ..# ###",
    " ": "... ... ... ... ...",
}

Box = tuple[slice, slice]


def mean_counts(layout: Layout) -> npt.NDArray[np.float32]:
    """Return (H, W) float32: what each pixel counts on average, with the modules' numbers in their places.

    The numbers stand upright in the image: a module that is mounted upside down and not
    turned back shows at once.
    """
    mean = _diffraction_rings(layout.image_shape)
    for numbers, box in _labelled_boxes(layout):
        _write(mean[box], " ".join(map(str, numbers)))
    return np.asarray(mean * np.float32(BRIGHTEST * _full_scale(layout)), np.float32)


def expose(mean: npt.NDArray[np.float32], layout: Layout, random: np.random.Generator) -> npt.NDArray[Any]:
    """Return (H, W), in the type of the ring: counts with the noise of counting photons."""
    counts = random.standard_normal(mean.shape, np.float32)
    counts *= np.sqrt(mean)
    counts += mean
    np.clip(np.rint(counts, out=counts), 0, np.float32(_full_scale(layout) * 0.99), out=counts)
    return counts.astype(layout.ring_dtype)


def _full_scale(layout: Layout) -> int:
    return (1 << layout.pixel_bits) - 1


def _diffraction_rings(shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return (H, W) float32: brightness, at most 1."""
    height, width = shape
    half_diagonal = float(np.hypot(height, width)) / 2
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / half_diagonal
    x = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / half_diagonal
    mean = _radial_profile()[np.minimum(np.hypot(x, y) * 1000, 1000).astype(np.intp)]
    mean[np.hypot(x, y) < BEAM_STOP_RADIUS] = SHADOW
    mean[(np.abs(x) < BEAM_STOP_RADIUS / 4) & (y > 0)] = SHADOW  # the arm that holds it
    return np.asarray(mean, np.float32)


def _radial_profile() -> npt.NDArray[np.float32]:
    """Return (1001,) float32: brightness, at most 1, over the radius in thousandths."""
    radius = np.linspace(0, 1, 1001)
    brightness = 0.05 + 0.3 * np.exp(-radius / 0.15)
    for ring in RINGS:
        brightness += np.exp(-(((radius - ring) / RING_WIDTH) ** 2) / 2 - ring)
    return np.asarray(brightness / brightness.max(), np.float32)


def _labelled_boxes(layout: Layout) -> list[tuple[list[int], Box]]:
    """Return the areas of the image and whose they are; a GigaFRoST's links share theirs in pairs."""
    areas: list[tuple[list[int], Box]] = []
    for module in layout.modules:
        box = _box_of(layout, module)
        sharing = next((numbers for numbers, other in areas if _overlap(box, other)), None)
        if sharing is None:
            areas.append(([module], box))
        else:
            sharing.append(module)
    return areas


def _box_of(layout: Layout, module: int) -> Box:
    """Return the rows and columns that a module's ports cover, from the first and last pixel of each."""
    ports = layout.ports[layout.ports["module"] == module]
    if len(ports) == 0:  # it sends whole images
        return slice(0, layout.image_shape[0]), slice(0, layout.image_shape[1])
    first = ports["first_pixel"]
    last = (
        first
        + (ports["n_units"] * ports["rows"] - 1) * ports["row_step"]
        + (ports["segments"] - 1) * ports["segment_step"]
        + (ports["segment_pixels"] - 1) * ports["column_step"]
    )
    rows, columns = np.divmod(np.concatenate([first, last]), layout.image_shape[1])
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)


def _overlap(a: Box, b: Box) -> bool:
    return all(one.start < other.stop and other.start < one.stop for one, other in zip(a, b, strict=True))


def _write(area: npt.NDArray[np.float32], text: str) -> None:
    """Draw a text in the middle of an area, as large as a quarter of it; nothing where there is no room."""
    glyphs = [_glyph(letter) for letter in text]
    ink = np.concatenate(glyphs, axis=1)
    height, width = area.shape
    size = max(1, min(height // (4 * ink.shape[0]), width // (2 * ink.shape[1])))
    ink = np.kron(ink, np.ones((size, size), bool))
    top, left = (height - ink.shape[0]) // 2, (width - ink.shape[1]) // 2
    if min(top, left) >= 0:
        area[top : top + ink.shape[0], left : left + ink.shape[1]][ink] = 1.0


def _glyph(letter: str) -> npt.NDArray[np.bool_]:
    """Return (5, 4) bool, the last column empty."""
    rows = GLYPHS[letter].split()
    return np.array([[cell == "#" for cell in row] + [False] for row in rows], bool)
