"""Random detectors as configs: one to four modules with flips and gaps, or a GigaFRoST of any size."""

from __future__ import annotations

from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.detectors import FORMATS, DetectorFormat

MODULES = {
    form.name: form.module
    for form in FORMATS.values()
    if isinstance(form, DetectorFormat) and form.module is not None
}
"""Columns and rows of a module."""


@st.composite
def configs(
    draw: st.DrawFn,
    kind: str,
    *,
    rows: tuple[int, ...] = (),
    mirrored: bool = True,
    interfaces: int = 1,
    most: int = 4,
) -> DaqConfig:
    """Draw a detector.

    Parameters
    ----------
    kind : "eiger-8", "jungfrau-16", …
    rows : heights that a Jungfrau module may have
    mirrored : whether modules may run from right to left, too
    interfaces : UDP ports of a Jungfrau module
    most : modules
    """
    detector, bit_depth = kind.split("-")
    width, height = MODULES[detector]
    grids = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)]
    columns, lines = draw(st.sampled_from([grid for grid in grids if grid[0] * grid[1] <= most]))
    height = draw(st.sampled_from(rows or (height,)))
    gap = st.integers(0, 9)
    x_edges = [draw(gap) for _ in range(columns + 1)]
    y_edges = [draw(gap) for _ in range(lines + 1)]
    numbers = draw(st.permutations(range(columns * lines)))  # which module is where
    positions = {}
    for place, module in enumerate(numbers):
        line, column = divmod(place, columns)
        x = column * width + sum(x_edges[: column + 1])
        y = line * height + sum(y_edges[: line + 1])
        left, right = (x, x + width - 1)[:: draw(st.sampled_from([1, -1] if mirrored else [1]))]
        top, bottom = (y, y + height - 1)[:: draw(st.sampled_from([1, -1]))]
        positions[str(module)] = [left, top, right, bottom]
    return DaqConfig.parse(
        {
            "detector_name": "random",
            "detector_type": detector,
            "bit_depth": int(bit_depth),
            "image_pixel_height": lines * height + sum(y_edges),
            "image_pixel_width": columns * width + sum(x_edges),
            "n_modules": columns * lines + draw(st.integers(0, 2)),  # some may be left out
            "start_udp_port": 50000,
            "writer_user_id": 0,
            "module_positions": positions,
            "n_udp_interfaces": interfaces,
        }
    )


@st.composite
def gigafrosts(draw: st.DrawFn, *, largest: int = 2016) -> DaqConfig:
    """Draw a GigaFRoST of a legal size, up to `largest` columns and rows, on 8 or 16 ports."""
    return gigafrost(
        image_pixel_height=4 * draw(st.integers(1, largest // 4)),
        image_pixel_width=24 * draw(st.integers(3, largest // 24)),
        n_udp_ports=draw(st.sampled_from([8, 16])),
    )


def gigafrost(**values: int) -> DaqConfig:
    """Return a GigaFRoST of a given size."""
    common = {
        "detector_name": "random",
        "detector_type": "gigafrost",
        "bit_depth": 16,
        "n_modules": 8,
        "start_udp_port": 50000,
        "writer_user_id": 0,
        "module_positions": {},
    }
    return DaqConfig.parse(common | values)
