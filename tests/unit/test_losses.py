"""What a run lost, in words and as an efficiency."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from daq_core.state.losses import NO_LOSSES, Losses, in_short, in_words
from daq_core.state.status import Acquisition, AcquisitionState, WriteRequest

OF_OTHERS = {"given_up_images", "not_good_images"}
"""Counts of images that another count has, too."""


@pytest.mark.parametrize("name", [field.name for field in fields(Losses) if field.name not in OF_OTHERS])
def test_whatever_was_lost_is_said(name: str) -> None:
    lossy = replace(NO_LOSSES, **{name: (7,) if name == "silent_modules" else 7})
    assert lossy.any
    assert "7" in in_words(lossy)


def test_nothing_lost_is_nothing_to_say() -> None:
    assert (NO_LOSSES.any, in_words(NO_LOSSES), in_short(NO_LOSSES)) == (False, "", "-")


def test_one_is_said_as_one_and_several_as_several() -> None:
    one = Losses(missing_packets=1, incomplete_images=1, silent_modules=(3,))
    assert in_words(one) == "1 image incomplete, 1 packet missing, nothing from module 3"
    several = Losses(missing_packets=132, incomplete_images=20, dropped_images=2, silent_modules=(1, 3))
    assert (
        in_words(several)
        == "20 images incomplete, 132 packets missing, 2 images dropped, nothing from modules 1, 3"
    )
    assert in_short(several) == "20 incomplete, 2 dropped, module 1,3 silent"


@pytest.mark.parametrize(
    ("state", "n_images", "kept", "completed", "losses", "efficiency"),
    [
        ("FINISHED", 10, 10, 10, NO_LOSSES, 1.0),
        ("FINISHED", 10, 10, 10, Losses(incomplete_images=4, not_good_images=4), 0.6),
        ("FINISHED", 10, 5, 5, NO_LOSSES, 0.5),  # stopped: of what was asked for
        ("FINISHED", 10, 0, 0, NO_LOSSES, 0.0),
        ("FINISHED", 10, 10, 10, Losses(dropped_images=7), 1.0),  # as many good ones as were asked for
        ("FINISHED", 0, 8, 8, Losses(dropped_images=2), 0.8),  # open-ended: of what came
        ("FINISHED", 0, 0, 0, NO_LOSSES, None),
        ("FINISHED", 0, 10, 8, Losses(dropped_images=2, given_up_images=2), 0.8),
        ("FAILED", 100, 10, 4, NO_LOSSES, 0.4),
        ("FAILED", 100, 0, 0, NO_LOSSES, None),
        (
            "WRITING",
            100,
            10,
            2,
            Losses(incomplete_images=1, not_good_images=1),
            0.9,
        ),  # the rest comes to disk
        ("WAITING_IMAGES", 100, 0, 0, NO_LOSSES, None),
        ("FINISHED", 10, 10, 10, None, None),  # of a journal that has no losses
        ("FAILED", 10, 10, 3, Losses(not_good_images=5), 0.0),
    ],
)
def test_the_efficiency_is_the_part_of_good_images(
    state: str, n_images: int, kept: int, completed: int, losses: Losses | None, efficiency: float | None
) -> None:
    run = Acquisition(
        AcquisitionState(state), "", WriteRequest("/data/a.h5", n_images, 1), kept, completed, losses=losses
    )
    assert run.efficiency == efficiency


def test_before_the_first_run_there_is_no_efficiency() -> None:
    assert Acquisition().efficiency is None
