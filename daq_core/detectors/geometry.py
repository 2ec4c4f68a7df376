"""Where each module's pixels go in the assembled image, with all checks.

``module_positions`` gives the image pixel of a module's first and of its last
wire pixel; this file turns that into start and steps, in pixels of the
row-major image, which is all a placement kernel needs.

Source: the std_daq detector JSON (README of ``std_daq_client`` 1.3.5); flips
on both axes are honoured for every detector, where the original ignores some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Placement:
    """One module in the image; steps are in pixels of the row-major image."""

    module: int
    first_pixel: int  # y * width + x of the module's first wire pixel
    row_step: int  # from one wire row to the next: +width, or -width when flipped
    column_step: int  # from one wire column to the next: +1, or -1 when flipped
    x: tuple[int, int]  # covered columns, inclusive, ascending
    y: tuple[int, int]  # covered rows, inclusive, ascending
    n_rows: int


def place_modules(
    positions: Mapping[int, tuple[int, int, int, int]],
    *,
    n_modules: int,
    image_shape: tuple[int, int],
    module_width: int,
    module_heights: range,
) -> tuple[Placement, ...]:
    """Turn module_positions into placements, in ascending order of the module number.

    Parameters
    ----------
    image_shape : (rows, columns) of the assembled image
    module_width : columns a module covers, its own gaps included
    module_heights : the numbers of rows a module may have

    Raises
    ------
    ValueError
        A module number is out of range, or a module has the wrong size, lies
        outside the image or over another; the message names the module and the numbers.
    """
    if len(positions) > n_modules:
        raise ValueError(f"module_positions has {len(positions)} modules, but n_modules is {n_modules}")
    if not positions:
        raise ValueError("module_positions is empty: no module would be received")
    placements = tuple(
        _place(module, positions[module], n_modules, image_shape, module_width, module_heights)
        for module in sorted(positions)
    )
    for a, b in combinations(placements, 2):
        if a.x[0] <= b.x[1] and b.x[0] <= a.x[1] and a.y[0] <= b.y[1] and b.y[0] <= a.y[1]:
            raise ValueError(
                f"module_positions: module {b.module} (columns {b.x[0]}..{b.x[1]}, rows {b.y[0]}..{b.y[1]}) "
                f"overlaps module {a.module} (columns {a.x[0]}..{a.x[1]}, rows {a.y[0]}..{a.y[1]})"
            )
    return placements


def _place(
    module: int,
    corners: tuple[int, int, int, int],
    n_modules: int,
    image_shape: tuple[int, int],
    module_width: int,
    module_heights: range,
) -> Placement:
    height, width = image_shape
    where = f"module_positions: module {module} {list(corners)}"
    if not 0 <= module < n_modules:
        raise ValueError(f"{where}: module numbers are 0..{n_modules - 1} (n_modules is {n_modules})")
    x_start, y_start, x_end, y_end = corners
    columns, rows = abs(x_end - x_start) + 1, abs(y_end - y_start) + 1
    if columns != module_width or rows not in module_heights:
        raise ValueError(
            f"{where} covers {columns} x {rows} pixels (width x height), "
            f"but a module has {module_width} x {_heights(module_heights)}"
        )
    x, y = (min(x_start, x_end), max(x_start, x_end)), (min(y_start, y_end), max(y_start, y_end))
    if x[0] < 0 or y[0] < 0 or x[1] >= width or y[1] >= height:
        raise ValueError(
            f"{where} does not lie inside the image of {width} x {height} pixels "
            f"(image_pixel_width x image_pixel_height)"
        )
    return Placement(
        module=module,
        first_pixel=y_start * width + x_start,
        row_step=width if y_end >= y_start else -width,
        column_step=1 if x_end >= x_start else -1,
        x=x,
        y=y,
        n_rows=rows,
    )


def _heights(heights: range) -> str:
    if len(heights) == 1:
        return str(heights[0])
    return f"a multiple of {heights.step} up to {heights[-1]}"
