"""Random detectors: one to four modules with flips and gaps, as configs."""

from __future__ import annotations

from hypothesis import strategies as st

from daq_core.config import DaqConfig


@st.composite
def configs(draw: st.DrawFn, kind: str, *, rows: tuple[int, ...] = (), mirrored: bool = True) -> DaqConfig:
    """Draw a detector.

    Parameters
    ----------
    kind : "eiger-8", "jungfrau-16", …
    rows : heights that a Jungfrau module may have
    mirrored : whether modules may run from right to left, too
    """
    detector, bit_depth = kind.split("-")
    width = 514 if detector == "eiger" else 1024
    columns, lines = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)]))
    height = 256 if detector == "eiger" else draw(st.sampled_from(rows))
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
        }
    )
