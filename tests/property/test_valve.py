"""The valve in the receiver: what comes through it, and what a run by valve keeps, rule by rule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from daq_core.pipeline.valve import Passed, Valve
from daq_core.ring.words import Word
from tests.assembly.assembly_bench import N_SLOTS, Bench


class ValveBench(Bench):
    """A bench with the control process's side of the valve."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        pipeline: Any = SimpleNamespace(words=self.words)
        self.valve = Valve(pipeline)

    def arm_by_valve(self, n_images: int = 0) -> None:
        self.words[Word.BY_VALVE] = 1
        self.assembler.arm(n_images)

    def open(self, n_images: int = 0) -> None:
        self.valve.open(n_images)
        self.assembler.take_orders()

    def close(self) -> None:
        self.valve.close()
        self.assembler.take_orders()


def test_a_run_by_valve_takes_as_many_images_as_each_opening_lets_through() -> None:
    bench = ValveBench(n_slots=32)
    bench.arm_by_valve()
    for frame in (1, 2):
        bench.receive(frame)
    bench.open(2)
    for frame in (3, 4, 5):
        bench.receive(frame)
    assert bench.valve.passed.n_images == 2
    bench.close()
    bench.receive(6)
    bench.open(3)
    for frame in (7, 8, 9, 10):
        bench.receive(frame)
    bench.close()
    assert bench.in_run() == [3, 4, 7, 8, 9]
    assert bench.words[Word.RUN_KEPT] == 5
    assert bench.words[Word.RUN_DROPPED] == 0


def test_an_open_end_lets_images_through_until_the_gate_is_closed() -> None:
    bench = ValveBench(n_slots=32)
    bench.arm_by_valve()
    bench.open()
    for frame in (1, 2, 3):
        bench.receive(frame)
    bench.close()
    bench.receive(4)
    assert bench.in_run() == [1, 2, 3]


def test_an_image_that_was_begun_before_the_gate_was_opened_does_not_pass() -> None:
    bench = ValveBench()
    bench.arm_by_valve()
    bench.receive(1, 0)
    bench.open(1)
    bench.receive(1, 1)
    assert bench.valve.passed == Passed()
    bench.receive(2)
    assert bench.in_run() == [2]


def test_an_image_that_was_begun_before_the_gate_was_closed_passes_when_it_is_whole() -> None:
    bench = ValveBench()
    bench.arm_by_valve()
    bench.open()
    bench.receive(1, 0)
    bench.close()
    assert not bench.valve.is_settled
    bench.receive(2, 0)
    bench.receive(1, 1)
    assert bench.valve.is_settled
    bench.receive(2, 1)
    assert bench.in_run() == [1]
    assert bench.valve.passed.n_images == 1


def test_a_run_by_valve_ends_with_the_last_image_it_asked_for() -> None:
    bench = ValveBench()
    bench.arm_by_valve(2)
    bench.receive(1)
    bench.open()
    for frame in (2, 3, 4):
        bench.receive(frame)
    assert bench.in_run() == [2, 3]
    assert bench.valve.passed.n_images == 3


def test_the_gate_means_nothing_to_another_run() -> None:
    bench = ValveBench()
    bench.assembler.arm()
    bench.receive(1)
    bench.open(1)
    for frame in (2, 3):
        bench.receive(frame)
    bench.close()
    bench.receive(4)
    assert bench.in_run() == [1, 2, 3, 4]


def test_images_pass_without_a_run_and_the_newest_is_known() -> None:
    bench = ValveBench()
    bench.receive(1)
    bench.open(2)
    for frame in (2, 3, 4):
        bench.receive(frame)
    passed = bench.valve.passed
    assert (passed.n_images, passed.newest_id) == (2, 3)


def test_images_that_a_run_by_valve_drops_do_not_pass() -> None:
    """A client asked for so many images in the file, and gets as many."""
    bench = ValveBench(incomplete_images="drop")
    bench.arm_by_valve()
    bench.open(2)
    bench.receive(1)
    bench.receive(2, 0)
    bench.turn(1.0)
    bench.receive(3, now=1.0)
    assert bench.in_run() == [1, 3]
    assert bench.valve.passed.n_images == 2


@pytest.mark.parametrize(("is_open", "n_lost"), [(False, 0), (True, 1)])
def test_an_image_without_a_slot_is_lost_where_the_gate_is_open(is_open: bool, n_lost: int) -> None:
    bench = ValveBench()
    bench.arm_by_valve()
    if is_open:
        bench.open()
    for frame in range(N_SLOTS + 1):  # nobody consumes
        bench.receive(frame + 1)
    assert bench.words[Word.RUN_DROPPED] == n_lost


def test_what_passed_is_known_as_soon_as_the_receiver_has_seen_the_opening() -> None:
    bench = ValveBench()
    bench.open(1)
    bench.receive(1)
    bench.valve.close()  # not taken up yet
    assert bench.valve.passed.n_images == 1
    bench.assembler.take_orders()
    bench.valve.open(1)
    assert bench.valve.passed.n_images == 0
    assert not bench.valve.is_followed
