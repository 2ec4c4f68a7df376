"""Which packets make an image, when it is given up, and what a run finds of it: rule by rule.

So that a failure of ``test_assembly.py`` says which of the rules broke.
"""

from __future__ import annotations

import pytest

from daq_core.assembling.local import Local
from daq_core.ring.ring import COMPLETE, GOOD, ID_MISMATCH, MISSING_PACKETS
from daq_core.ring.words import Word
from tests.assembly.assembly_bench import Bench, sent
from tests.oracle.packets import datagram, packet_numbers

pytestmark = pytest.mark.kernels


def test_images_are_published_in_the_order_of_their_first_packet() -> None:
    bench = Bench()
    bench.receive(7, 0)
    bench.receive(6, 1)
    bench.receive(6, 0)
    assert bench.published() == []
    bench.receive(7, 1)
    assert bench.published() == [7, 6]


def test_an_image_is_given_up_only_after_its_timeout_without_a_packet() -> None:
    bench = Bench(image_timeout_s=0.5)
    bench.receive(1, 0, now=10.0)
    bench.turn(10.499)
    assert bench.published() == []
    bench.turn(10.5)
    assert bench.published() == [1]
    assert bench.assembler.slot(0).status == MISSING_PACKETS
    assert bench.assembler.slot(0).n_missing == 1


def test_a_newer_packet_prolongs_the_life_of_an_image() -> None:
    bench = Bench(image_timeout_s=0.5, module_positions={"0": [0, 0, 1023, 15]}, image_pixel_height=16)
    bench.receive(1, 0, now=10.0)
    bench.receive(1, 1, now=10.4)
    bench.turn(10.6)
    assert bench.published() == []
    bench.turn(10.9)
    assert bench.published() == [1]


def test_the_oldest_image_leaves_a_full_window() -> None:
    bench = Bench(module_sync_queue_size=3)
    for frame in (1, 2, 3):
        bench.receive(frame, 0)
    assert bench.published() == []
    bench.receive(4, 0)
    assert bench.published() == [1]


def test_the_window_is_never_more_than_half_the_ring() -> None:
    assert Bench(n_slots=8, module_sync_queue_size=50).assembler.local[Local.WINDOW] == 4
    assert Bench(n_slots=200, module_sync_queue_size=50).assembler.local[Local.WINDOW] == 50


def test_a_packet_of_an_image_published_in_this_run_is_late() -> None:
    bench = Bench()
    bench.assembler.arm()
    bench.receive(1)
    bench.receive(1, 0)
    assert bench.words[Word.LATE] == 1
    assert bench.in_run() == [1]


def test_the_next_run_takes_the_same_frame_numbers_at_once() -> None:
    bench = Bench()
    for _ in range(3):
        bench.assembler.arm()
        for frame in (1, 2, 3):
            bench.receive(frame)
        assert bench.in_run() == [1, 2, 3]
        bench.assembler.consume(int(bench.words[Word.PUBLISHED]))
        bench.assembler.disarm()
        bench.assembler.end_writer()
    assert bench.words[Word.LATE] == bench.words[Word.RESTARTS] == 0


def test_an_image_opened_before_the_run_is_not_in_it() -> None:
    bench = Bench()
    bench.receive(1, 0)
    bench.assembler.arm()
    bench.receive(1, 1)
    bench.receive(2)
    assert bench.published() == [1, 2]
    assert bench.in_run() == [2]
    assert bench.assembler.slot(0).state == COMPLETE


def test_a_packet_that_comes_again_after_the_start_opens_the_runs_own_image() -> None:
    """The detector was stopped within frame 1 and armed again: after a pause its first packet tells."""
    bench = Bench()
    bench.receive(1, 0)
    bench.assembler.arm()
    bench.receive(1, 0, now=0.01)
    bench.receive(1, 1, now=0.01)
    assert bench.in_run() == [1]
    assert bench.words[Word.DUPLICATE] == 0
    assert bench.words[Word.RUN_INCOMPLETE] == 0


def test_a_jump_back_by_more_than_the_window_is_a_restart_and_accepted() -> None:
    bench = Bench(module_sync_queue_size=4)
    bench.assembler.arm()
    for frame in (100, 101, 1, 2):
        bench.receive(frame)
    assert bench.in_run() == [100, 101, 1, 2]
    assert bench.words[Word.RESTARTS] == 1


def test_a_jump_back_within_the_window_is_no_restart() -> None:
    bench = Bench(module_sync_queue_size=4)
    bench.assembler.arm()
    for frame in (100, 103, 99):
        bench.receive(frame)
    assert bench.in_run() == [100, 103, 99]
    assert bench.words[Word.RESTARTS] == 0


def test_a_packet_that_is_delayed_past_a_jump_ahead_takes_nothing_from_the_first_image_there() -> None:
    bench = Bench(module_positions={"0": [0, 0, 1023, 15]}, image_pixel_height=16)
    bench.assembler.arm()
    bench.receive(1, 0, 1, 2, 3)
    bench.receive(2, 0, 1, 3)
    bench.receive(9000, 0)
    bench.receive(2, 2, 3)
    bench.receive(9000, 1, 2, 3)
    assert bench.in_run() == [1, 2, 9000]
    assert [bench.assembler.slot(i).n_missing for i in range(3)] == [0, 0, 0]
    assert bench.words[Word.RESTARTS] == bench.words[Word.LATE] == 0
    assert bench.words[Word.DUPLICATE] == 1


def test_a_sender_that_stood_still_within_a_frame_and_repeats_a_packet_was_not_armed_again() -> None:
    bench = Bench(module_positions={"0": [0, 0, 1023, 15]}, image_pixel_height=16)
    bench.assembler.arm()
    bench.receive(1, 0, 1, 2, 3)
    bench.receive(2, 0, 1)
    bench.receive(2, 1, now=0.1)
    bench.receive(2, 2, 3, now=0.1)
    assert bench.published() == [1, 2]
    assert bench.assembler.slot(1).status == GOOD
    assert bench.words[Word.RESTARTS] == bench.words[Word.LATE] == 0
    assert bench.words[Word.DUPLICATE] == 1


@pytest.mark.parametrize("first", [0, 1, 29512, 2**32 - 1, 2**63 - 2, 2**63, 2**64 - 3])
def test_a_run_may_begin_with_any_frame_number(first: int) -> None:
    bench = Bench()
    bench.assembler.arm()
    frames = [first, first + 1, first + 2]
    for frame in frames:
        bench.receive(frame)
    assert bench.in_run() == frames
    assert bench.words[Word.RESTARTS] == 0
    assert int(bench.words[Word.LAST_IMAGE_ID]) % 2**64 == frames[-1]


def test_frame_numbers_that_wrap_around_are_a_restart_and_no_image_is_lost() -> None:
    bench = Bench()
    bench.assembler.arm()
    for frame in (2**64 - 2, 2**64 - 1, 0, 1):
        bench.receive(frame)
    assert bench.in_run() == [2**64 - 2, 2**64 - 1, 0, 1]
    assert bench.words[Word.RESTARTS] == 1


def test_a_full_ring_drops_the_newest_image_and_counts_it_once() -> None:
    bench = Bench(n_slots=8)
    bench.assembler.arm()
    for frame in range(1, 11):
        bench.receive(frame)
    assert bench.in_run() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert bench.words[Word.RUN_DROPPED] == bench.words[Word.DROPPED_IMAGES] == 2
    assert bench.words[Word.UNPLACED] == 4
    bench.assembler.consume(1)
    bench.receive(11)
    assert bench.words[Word.RUN_KEPT] == 9


def test_an_image_that_was_dropped_stays_dropped_when_room_comes_in_its_middle() -> None:
    bench = Bench(n_slots=8)
    bench.assembler.arm()
    for frame in range(1, 9):
        bench.receive(frame)
    bench.receive(9, 0)
    bench.assembler.consume(2)
    bench.receive(9, 1)
    bench.receive(10)
    assert bench.words[Word.RUN_DROPPED] == 1
    assert bench.words[Word.RUN_INCOMPLETE] == 0
    assert bench.words[Word.RUN_KEPT] == 9


def test_a_full_ring_does_not_hurt_images_that_are_open() -> None:
    """Window and ring are full together: giving up the oldest would not make room for the newest."""
    bench = Bench(n_slots=8, module_sync_queue_size=4)
    bench.assembler.arm()
    for frame in (1, 2, 3, 4):
        bench.receive(frame)
    for frame in (5, 6, 7, 8):
        bench.receive(frame, 0)
    bench.receive(9)
    for frame in (5, 6, 7, 8):
        bench.receive(frame, 1)
    assert bench.in_run() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert bench.words[Word.RUN_INCOMPLETE] == 0
    assert bench.words[Word.RUN_DROPPED] == 1


def test_without_a_run_the_ring_is_never_full_and_nothing_is_lost() -> None:
    bench = Bench(n_slots=8)
    for frame in range(1, 100):
        bench.receive(frame)
    assert bench.words[Word.IMAGES_PUBLISHED] == 99
    assert bench.words[Word.UNPLACED] == bench.words[Word.DROPPED_IMAGES] == 0


@pytest.mark.parametrize(
    ("id_source", "bunch_id", "image_id"),
    [
        ("frame", bytes(8), 5),
        ("bunch-int", (2**64 - 1).to_bytes(8, "little"), 2**64 - 1),
        ("bunch", b"\0\0\0\0\0\0\x45\x40", 42),  # 42.0
        ("bunch", b"\0\0\0\0\0\0\0\0", 0),
    ],
)
def test_the_image_id_comes_from_where_it_is_said(id_source: str, bunch_id: bytes, image_id: int) -> None:
    bench = Bench(id_source=id_source)
    numbers = packet_numbers("jungfrau", 16, (0, 0, 1023, 7))
    bench.assembler.receive(0, [datagram(5, n, bytes(8192), bunch_id=bunch_id) for n in numbers])
    bench.assembler.publish_ready()
    assert int(bench.assembler.slot(0).image_id) == image_id
    assert bench.assembler.slot(0).status == GOOD


@pytest.mark.parametrize(
    "bunch_id",
    [b"\0\0\0\0\0\0\xf8\x7f", b"\0\0\0\0\0\0\xf0\x7f", b"\0\0\0\0\0\0\xf0\xbf"],
    ids=["nan", "inf", "-1"],
)
def test_a_bunch_id_that_is_no_number_makes_a_packet_malformed(bunch_id: bytes) -> None:
    bench = Bench(id_source="bunch")
    bench.assembler.receive(0, [datagram(5, 63, bytes(8192), bunch_id=bunch_id)])
    assert bench.words[Word.MALFORMED] == 1
    assert bench.words[Word.OPENED] == 0


def test_modules_that_disagree_on_the_image_id_are_shown_by_the_status() -> None:
    bench = Bench(id_source="bunch-int")
    bench.assembler.arm()
    for number, bunch_id in ((63, 1), (64, 2)):
        one = datagram(5, number, bytes(8192), bunch_id=bunch_id.to_bytes(8, "little"))
        bench.assembler.receive(0, [one])
    bench.assembler.publish_ready()
    assert bench.assembler.slot(0).status == ID_MISMATCH
    assert bench.words[Word.RUN_MISMATCHED] == 1


@pytest.mark.parametrize(("n_packets", "is_sparse"), [(1, True), (2, False), (3, False), (4, False)])
def test_an_image_with_less_than_half_of_its_packets_is_counted_as_sparse(
    n_packets: int, is_sparse: bool
) -> None:
    bench = Bench(module_positions={"0": [0, 0, 1023, 15]}, image_pixel_height=16)
    bench.assembler.arm()
    bench.receive(1, *range(n_packets))
    bench.turn(1.0)
    assert bench.in_run() == [1]
    assert bench.words[Word.RUN_SPARSE] == is_sparse
    assert bench.words[Word.RUN_NOT_GOOD] == (n_packets < 4)


def test_an_image_that_is_left_out_is_not_counted_as_sparse() -> None:
    bench = Bench(incomplete_images="drop", module_positions={"0": [0, 0, 1023, 15]}, image_pixel_height=16)
    bench.assembler.arm()
    bench.receive(1, 0)
    bench.turn(1.0)
    assert bench.words[Word.RUN_DROPPED] == 1
    assert bench.words[Word.RUN_SPARSE] == bench.words[Word.RUN_NOT_GOOD] == 0


def test_packets_are_counted_for_each_module_from_the_start_of_the_run() -> None:
    positions = {"0": [0, 0, 1023, 7], "1": [0, 8, 1023, 15]}
    bench = Bench(n_modules=2, module_positions=positions, image_pixel_height=16)
    bench.receive(1)
    bench.assembler.arm()
    bench.assembler.receive(1, [sent(bench.config, 2, 1, 0)])
    assert bench.assembler.ring.module_packets.tolist() == [0, 1]
