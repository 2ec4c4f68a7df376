"""Whose numbers are not the others' is said with module and distance; whoever is in step is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daq_core.receiving.steps import PERSISTS_NS, out_of_step
from daq_core.ring.words import Arm

WINDOW = 50


def ports(*newest: int, **columns: list[int]) -> Any:
    """Return the arms of ports that were heard in the run, all in one arm."""
    arms = np.zeros((len(newest), Arm.COUNT), np.int64)
    arms[:, Arm.NEWEST] = np.array(newest, np.uint64).view(np.int64)
    arms[:, Arm.IS_HEARD] = 1
    for name, values in columns.items():
        arms[:, getattr(Arm, name)] = values
    return arms


def said(arms: Any) -> list[str]:
    return out_of_step(arms, np.arange(len(arms)) + 4, WINDOW)


@pytest.mark.parametrize("arms", [ports(7), ports(100, 100), ports(100, 60, 149), ports(0, 2**64 - 1)[:1]])
def test_modules_in_step_are_not_warned_of(arms: Any) -> None:
    assert said(arms) == []


def test_a_module_that_counts_from_elsewhere_is_named_with_its_distance() -> None:
    (warning,) = said(ports(200, 1200))
    assert warning.startswith("module 5 counts 1000 images ahead of module 4: ")
    (warning,) = said(ports(1200, 1201, 200))
    assert warning.startswith("module 6 counts 1000 images behind module 4: ")


def test_a_module_that_lags_is_named_though_it_has_caught_up() -> None:
    (warning,) = said(ports(200, 200, BEHIND=[0, 121]))
    assert warning.startswith("module 5 is 120 images behind the others")


def test_a_module_that_was_armed_again_alone_is_named() -> None:
    late, early = 10 * PERSISTS_NS, PERSISTS_NS
    (warning,) = said(
        ports(900, 901, 5, ARM=[1, 1, 2], ENTERED_NS=[0, 0, early], HEARD_NS=[late, late, late])
    )[:1]
    assert warning.startswith("module 4 counts 900 images ahead of module 6: ")


def test_ports_that_are_armed_again_one_after_the_other_are_not_warned_of() -> None:
    assert said(ports(900, 1, ARM=[1, 2], ENTERED_NS=[0, 100], HEARD_NS=[100, 200])) == []


def test_a_port_that_shows_nothing_in_the_run_or_is_in_doubt_is_not_judged() -> None:
    assert said(ports(900, 1, IS_FRESH=[0, 1])) == []
    assert said(ports(900, 1, IS_HEARD=[1, 0])) == []
    assert said(ports(900, 1, DOUBT=[0, 1])) == []


def test_a_distance_of_all_there_is_is_said() -> None:
    (warning,) = said(ports(5, 2**64 - 1))
    assert "ahead of module 4" in warning
