"""How a run ends, by its last image or by a stop, and what it has then: rule by rule."""

from __future__ import annotations

import pytest

from daq_core.ring.words import NO_END, Word
from tests.assembly.assembly_bench import Bench

pytestmark = pytest.mark.kernels


def test_a_run_ends_with_the_last_image_it_asked_for() -> None:
    bench = Bench()
    bench.assembler.arm(2)
    assert bench.words[Word.RUN_END] == NO_END
    for frame in (1, 2, 3):
        bench.receive(frame)
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_END] == 2
    assert bench.words[Word.RUN_KEPT] == 2


@pytest.mark.parametrize(
    ("start_id", "behind_id", "kept"),
    [
        (0, 0, [1, 2, 3, 4, 6]),
        (3, 0, [3, 4, 6]),
        (0, 4, [1, 2, 3]),
        (2, 6, [2, 3, 4]),
        (4, 5, [4]),
        (9, 0, []),
    ],
)
def test_a_run_has_the_images_between_its_first_and_its_last_id(
    start_id: int, behind_id: int, kept: list[int]
) -> None:
    """Number 5 does not come: the next one ends a run that was to end with it."""
    bench = Bench(n_slots=16)
    bench.words[Word.START_ID], bench.words[Word.BEHIND_ID] = start_id, behind_id
    bench.assembler.arm()
    for frame in (1, 2, 3, 4, 6):
        bench.receive(frame)
    assert bench.in_run() == kept
    assert bench.words[Word.RUN_KEPT] == len(kept)
    assert (bench.words[Word.RUN_END] != NO_END) == (behind_id > 0)


def test_a_last_id_whose_image_lacks_packets_ends_the_run_with_the_next() -> None:
    """Alone it may be a packet with a wrong number."""
    bench = Bench(n_slots=16)
    bench.words[Word.BEHIND_ID] = 4
    bench.assembler.arm()
    bench.receive(2)
    bench.receive(3, 0)
    bench.turn(now=10)
    assert bench.words[Word.RUN_END] == NO_END
    bench.receive(4, now=11)
    assert bench.in_run() == [2, 3]
    assert bench.words[Word.RUN_END] == 3


def test_a_stop_keeps_every_complete_image() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(1, 0)
    bench.receive(2)
    bench.receive(3, 0)
    bench.assembler.disarm()
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_INCOMPLETE] == 1
    bench.receive(3, 1)
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_KEPT] == 2


def test_what_is_in_the_sockets_at_a_stop_belongs_to_the_run() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(1, 0)
    bench.assembler.ask_for_end()
    ending = bench.assembler.take_orders()
    assert bench.words[Word.RUN_END] == NO_END
    bench.receive(1, 1)
    bench.receive(2)
    bench.receive(3, 0)
    bench.assembler.end_run(ending)
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_END] == 2
    bench.receive(3, 1)
    assert bench.in_run() == [1, 2]


def test_a_stop_waits_for_nothing_when_the_run_has_all_its_images() -> None:
    bench = Bench()
    bench.assembler.arm(1)
    bench.receive(1)
    bench.assembler.ask_for_end()
    assert bench.assembler.take_orders() == 0
    assert bench.words[Word.ACKNOWLEDGED] == bench.words[Word.EPOCH]


def test_a_run_that_gets_its_last_image_from_the_sockets_at_a_stop_ends_with_it() -> None:
    bench = Bench()
    bench.assembler.arm(2)
    bench.receive(1)
    bench.assembler.ask_for_end()
    ending = bench.assembler.take_orders()
    for frame in (2, 3):
        bench.receive(frame)
    bench.assembler.end_run(ending)
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_END] == 2


def test_a_run_that_is_stopped_before_the_loop_saw_it_begin_has_what_is_in_the_sockets() -> None:
    """The receiver did not get its processor from before the start until after the stop."""
    bench = Bench()
    bench.receive(1)
    bench.assembler.ask_for_run()
    bench.assembler.ask_for_end()
    ending = bench.assembler.take_orders()
    bench.receive(2)
    bench.assembler.end_run(ending)
    assert bench.in_run() == [2]
    assert bench.words[Word.RUN_EPOCH] == 1
    assert bench.words[Word.ACKNOWLEDGED] == 2


def test_a_run_that_nobody_waits_for_any_more_is_passed_over() -> None:
    bench = Bench()
    bench.assembler.ask_for_run()
    bench.assembler.ask_for_end()
    bench.assembler.end_writer()
    assert bench.assembler.take_orders() == 0
    bench.receive(1)
    assert bench.words[Word.RUN_EPOCH] == 0
    assert bench.words[Word.RUN_KEPT] == 0


def test_a_start_right_after_a_stop_takes_what_is_in_the_sockets() -> None:
    """The former run's writer is gone, so its images would be lost: they are those of the new run."""
    bench = Bench()
    bench.assembler.arm()
    bench.receive(1)
    bench.assembler.consume(1)
    bench.assembler.ask_for_end()
    former = bench.assembler.take_orders()
    bench.assembler.end_writer()
    bench.assembler.ask_for_run()
    assert bench.assembler.take_orders() == 0
    bench.receive(2)
    bench.assembler.end_run(former)  # by a thread that had looked before
    assert bench.in_run() == [2]
    assert bench.words[Word.RUN_END] == NO_END


def test_incomplete_images_that_are_not_wanted_are_dropped_and_counted() -> None:
    bench = Bench(incomplete_images="drop")
    bench.assembler.arm(2)
    bench.receive(1, 0)
    bench.turn(1.0)
    bench.receive(2)
    bench.receive(3)
    assert bench.in_run() == [2, 3]
    assert bench.words[Word.RUN_DROPPED] == bench.words[Word.DROPPED_IMAGES] == 1
    assert bench.words[Word.RUN_MISSING] == 0
    assert bench.words[Word.RUN_END] == 3
