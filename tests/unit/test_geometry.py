"""Where modules go in the image: starts, steps and every reason to refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.detectors.geometry import Placement, place_modules

HEIGHTS = range(3, 4)


def place(positions: dict[int, tuple[int, int, int, int]], **changes: Any) -> tuple[Placement, ...]:
    """Place modules of 4 x 3 pixels in an image of 20 columns and 10 rows."""
    settings: dict[str, Any] = {
        "n_modules": 4,
        "image_shape": (10, 20),
        "module_width": 4,
        "module_heights": HEIGHTS,
    }
    return place_modules(positions, **settings | changes)


@pytest.mark.parametrize(
    ("corners", "first_pixel", "row_step", "column_step"),
    [
        ((5, 2, 8, 4), 2 * 20 + 5, 20, 1),
        ((5, 4, 8, 2), 4 * 20 + 5, -20, 1),
        ((8, 2, 5, 4), 2 * 20 + 8, 20, -1),
        ((8, 4, 5, 2), 4 * 20 + 8, -20, -1),
    ],
    ids=["upright", "upside down", "mirrored", "turned by 180 degrees"],
)
def test_the_corners_give_start_and_steps(
    corners: tuple[int, int, int, int], first_pixel: int, row_step: int, column_step: int
) -> None:
    (placed,) = place({0: corners})
    assert placed == Placement(0, first_pixel, row_step, column_step, x=(5, 8), y=(2, 4), n_rows=3)


def test_placements_come_in_the_order_of_the_module_numbers() -> None:
    assert [p.module for p in place({3: (0, 0, 3, 2), 1: (4, 0, 7, 2)})] == [1, 3]


@given(
    modules=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 2), st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
        unique_by=lambda module: module[:2],
    )
)
def test_modules_on_a_grid_never_overlap_and_cover_their_pixels_once(
    modules: list[tuple[int, int, bool, bool]],
) -> None:
    positions = {}
    for number, (column, line, mirrored, upside_down) in enumerate(modules):
        x, y = 4 * column, 3 * line
        xs = (x + 3, x) if mirrored else (x, x + 3)
        ys = (y + 2, y) if upside_down else (y, y + 2)
        positions[number] = (xs[0], ys[0], xs[1], ys[1])
    placed = place(positions)
    pixels = [
        p.first_pixel + row * p.row_step + column * p.column_step
        for p in placed
        for row in range(p.n_rows)
        for column in range(4)
    ]
    assert len(set(pixels)) == len(pixels) == 12 * len(modules)
    for p in placed:
        x_start, y_start, x_end, y_end = positions[p.module]
        last = p.first_pixel + 2 * p.row_step + 3 * p.column_step
        assert (p.first_pixel, last) == (20 * y_start + x_start, 20 * y_end + x_end)


@given(dx=st.integers(-6, 6), dy=st.integers(-6, 6))
def test_two_modules_are_refused_exactly_when_they_share_a_pixel(dx: int, dy: int) -> None:
    positions = {0: (8, 6, 11, 8), 1: (8 + dx, 6 + dy, 11 + dx, 8 + dy)}
    shared = {
        (x, y) for x in range(8, 12) for y in range(6, 9) if 0 <= x - 8 - dx < 4 and 0 <= y - 6 - dy < 3
    }
    if shared:
        with pytest.raises(ValueError, match=r"module 1 \(columns .* overlaps module 0 \(columns 8\.\.11"):
            place(positions, image_shape=(20, 20))
    else:
        assert len(place(positions, image_shape=(20, 20))) == 2


@pytest.mark.parametrize(
    "corners",
    [(-1, 0, 2, 2), (0, -1, 3, 1), (17, 0, 20, 2), (0, 8, 3, 10), (2, 2, -1, 0), (10**9, 0, 10**9 + 3, 2)],
)
def test_a_module_outside_the_image_is_refused(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not lie inside the image of 20 x 10 pixels") as refused:
        place({2: corners})
    assert f"module 2 {list(corners)}" in str(refused.value)


def test_a_module_may_touch_every_edge_of_the_image() -> None:
    assert place({0: (0, 0, 3, 2)}, image_shape=(3, 4))


@pytest.mark.parametrize("corners", [(0, 0, 4, 2), (0, 0, 2, 2), (0, 0, 3, 3), (0, 0, 3, 1), (0, 0, 0, 0)])
def test_a_module_of_a_wrong_size_is_refused_with_both_sizes(corners: tuple[int, int, int, int]) -> None:
    covered = f"{corners[2] + 1} x {corners[3] + 1} pixels"
    with pytest.raises(ValueError, match=f"covers {covered} .* but a module has 4 x 3"):
        place({1: corners})


def test_a_readout_of_some_rows_must_be_a_multiple_of_those_of_a_packet() -> None:
    heights = range(2, 9, 2)
    assert place({0: (0, 0, 3, 3)}, module_heights=heights)[0].n_rows == 4
    with pytest.raises(ValueError, match="but a module has 4 x a multiple of 2 up to 8"):
        place({0: (0, 0, 3, 2)}, module_heights=heights)


def test_too_many_modules_are_refused_and_fewer_are_not() -> None:
    positions = {m: (4 * m, 0, 4 * m + 3, 2) for m in range(5)}
    with pytest.raises(ValueError, match="module_positions has 5 modules, but n_modules is 4"):
        place(positions)
    assert len(place({m: positions[m] for m in (0, 2)})) == 2


@pytest.mark.parametrize("module", [-1, 4])
def test_a_module_number_out_of_range_is_refused(module: int) -> None:
    with pytest.raises(
        ValueError, match=rf"module {module} .*: module numbers are 0\.\.3 \(n_modules is 4\)"
    ):
        place({module: (0, 0, 3, 2)})


def test_no_module_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty"):
        place({})
