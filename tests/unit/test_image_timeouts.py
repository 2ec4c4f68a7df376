"""When a run has waited too long, with a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daq_core.state.image_timeouts import ImageTimeouts


def test_without_limits_a_run_waits_for_ever() -> None:
    timeouts = ImageTimeouts()
    assert [timeouts.overdue(n, now) for n, now in ((0, 0.0), (0, 1e9), (1, 1e9), (1, 2e9))] == [""] * 4


def test_the_first_image_has_its_own_limit() -> None:
    timeouts = ImageTimeouts(first_image_s=10)
    assert timeouts.overdue(0, 100.0) == ""
    assert timeouts.overdue(0, 109.9) == ""
    assert timeouts.overdue(0, 110.0) == "no image came within 10 s"
    assert timeouts.overdue(1, 111.0) == ""
    assert timeouts.overdue(1, 9999.0) == ""


def test_a_stall_is_counted_from_the_last_image() -> None:
    timeouts = ImageTimeouts(stall_s=2.5)
    assert timeouts.overdue(0, 0.0) == timeouts.overdue(0, 1000.0) == ""
    assert timeouts.overdue(1, 1001.0) == timeouts.overdue(7, 1003.4) == timeouts.overdue(7, 1005.8) == ""
    assert timeouts.overdue(7, 1005.9) == "images stopped: none came for 2.5 s after image 7"


@given(
    first=st.none() | st.integers(1, 50),
    stall=st.none() | st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=60),
)
def test_a_run_is_overdue_exactly_when_nothing_came_for_its_limit(
    first: int | None, stall: int | None, steps: list[tuple[int, int]]
) -> None:
    timeouts = ImageTimeouts(first, stall)
    now = n_images = last = 0
    timeouts.overdue(0, now)
    for seconds, more in steps:
        now, n_images = now + seconds, n_images + more
        last = now if more else last
        limit = stall if n_images else first
        assert bool(timeouts.overdue(n_images, now)) is (limit is not None and now - last >= limit)
