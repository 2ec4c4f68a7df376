"""In whatever order packets, runs and a slow writer come, compiled assembly and reference do the same."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daq_core.assembly import Local
from daq_core.compiled import JIT
from daq_core.config import DaqConfig
from daq_core.ring import COMPLETE, GOOD, ID_MISMATCH, MISSING_PACKETS, NO_END, Word
from tests.assembler import Assembler, assert_agreement
from tests.oracle.packets import datagram, packet_numbers
from tests.property.geometries import configs

SECOND = 10**9
N_SLOTS = 8


def sent(config: DaqConfig, frame: int, module: int, nth: int, edition: int = 0) -> bytes:
    """Return the n-th packet of a module in a frame; the edition changes its pixels."""
    number = packet_numbers("jungfrau", 16, config.module_positions[module])[nth]
    seed = f"{frame} {module} {nth} {edition}".encode()
    return datagram(frame, number, hashlib.shake_128(seed).digest(8192), bunch_id=frame.to_bytes(8, "little"))


class AssemblyMachine(RuleBasedStateMachine):
    """A Jungfrau of few rows, so that an image has 2 to 16 packets, and a ring of 8 images."""

    @initialize(
        config=configs("jungfrau-16", rows=(8, 16), mirrored=JIT),
        window=st.integers(1, 4),
        incomplete=st.sampled_from(["write", "drop"]),
        base=st.sampled_from([0, 1, 1000, 2**31 - 3, 2**63 - 3, 2**64 - 40]),
    )
    def begin(self, config: DaqConfig, window: int, incomplete: str, base: int) -> None:
        more = {"module_sync_queue_size": window, "incomplete_images": incomplete}
        self.config = config.merge(more)
        self.assembler = Assembler(self.config, N_SLOTS)
        self.reference = self.assembler.reference()
        self.base = base
        self.now = SECOND
        self.armed = self.has_writer = False
        self.ending = 0  # the epoch of an end that waits until the sockets are read
        self.edition = 0
        self.packets = [
            (module, nth)
            for module, corners in self.config.module_positions.items()
            for nth in range(len(packet_numbers("jungfrau", 16, corners)))
        ]

    def deliver(self, frame: int, packets: list[tuple[int, int]]) -> None:
        for module, nth in packets:
            one = sent(self.config, frame % 2**64, module, nth, self.edition)
            self.assembler.receive(module, [one], self.now)
            self.reference.receive(module, one, self.now)

    def publish(self) -> None:
        self.assembler.publish_ready(self.now)
        self.reference.publish_ready(self.now)

    @rule(ahead=st.integers(0, 6), data=st.data())
    def some_packets_arrive(self, ahead: int, data: st.DataObject) -> None:
        packets = data.draw(st.lists(st.sampled_from(self.packets), min_size=1, max_size=6))
        self.deliver(self.base + ahead, packets)

    @rule(ahead=st.integers(0, 6), data=st.data())
    def a_whole_image_arrives(self, ahead: int, data: st.DataObject) -> None:
        self.deliver(self.base + ahead, data.draw(st.permutations(self.packets)))

    @rule(module=st.integers(0, 3))
    def packets_of_two_frames_arrive_in_one_batch(self, module: int) -> None:
        module = sorted(self.config.module_positions)[module % len(self.config.module_positions)]
        frames = [self.base, self.base + 1, self.base, self.base + 1]
        batch = [sent(self.config, frame % 2**64, module, i // 2) for i, frame in enumerate(frames)]
        self.assembler.receive(module, batch, self.now)
        for one in batch:
            self.reference.receive(module, one, self.now)

    @rule()
    def the_loop_turns(self) -> None:
        self.publish()

    @rule(seconds=st.sampled_from([0.2, 0.6, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.publish()

    @rule(by=st.integers(1, 5))
    def the_detector_goes_on(self, by: int) -> None:
        self.base += by

    @rule(to=st.sampled_from([0, 1, 500, 2**63, 2**64 - 3]), edition=st.integers(0, 5))
    def the_detector_is_armed_again(self, to: int, edition: int) -> None:
        self.base, self.edition = to, edition

    @precondition(lambda self: not self.has_writer)
    @rule(n_images=st.integers(0, 4), at_once=st.booleans())
    def a_run_is_asked_for(self, n_images: int, at_once: bool) -> None:
        self.assembler.ask_for_run(n_images)
        self.reference.ask_for_run(n_images)
        self.armed = self.has_writer = True
        if at_once:
            self.the_loop_looks_for_orders()

    @precondition(lambda self: self.armed)
    @rule(at_once=st.booleans())
    def a_stop_is_asked_for(self, at_once: bool) -> None:
        self.assembler.ask_for_end()
        self.reference.ask_for_end()
        self.armed = False
        if at_once:
            self.the_loop_looks_for_orders()
            self.the_sockets_are_read()

    @rule()
    def the_loop_looks_for_orders(self) -> None:
        self.ending = self.assembler.take_orders()
        self.reference.look()
        assert bool(self.ending) == self.reference.ending

    @precondition(lambda self: self.ending)
    @rule()
    def the_sockets_are_read(self) -> None:
        self.assembler.end_run(self.ending)
        self.reference.end_of_sockets()
        self.ending = 0

    @precondition(lambda self: self.reference.writer_alive)
    @rule(n=st.integers(1, 4))
    def the_writer_goes_on(self, n: int) -> None:
        start = max(self.reference.n_consumed, self.reference.run_from)
        end = self.reference.n_published
        if self.reference.run_end is not None:
            end = min(end, self.reference.run_end)
        self.reference.n_consumed = max(start, min(start + n, end))
        self.assembler.consume(self.reference.n_consumed)

    @precondition(lambda self: self.has_writer and not self.armed)
    @rule()
    def the_writer_ends(self) -> None:
        self.assembler.end_writer()
        self.reference.end_writer()
        self.has_writer = False

    @invariant()
    def both_agree(self) -> None:
        assert_agreement(self.assembler, self.reference)


AssemblyMachine.TestCase.settings = settings(
    max_examples=80 if JIT else 15, stateful_step_count=40, deadline=None
)
TestAssembly = AssemblyMachine.TestCase


# The rules of the reference page, one by one, so that a failure says which of them broke.


class Bench:
    """One module of 8 rows: an image has the packets 0 and 1."""

    def __init__(self, *, n_slots: int = N_SLOTS, id_source: str = "frame", **settings: Any) -> None:
        values = {
            "detector_name": "one",
            "detector_type": "jungfrau",
            "bit_depth": 16,
            "image_pixel_height": 8,
            "image_pixel_width": 1024,
            "n_modules": 1,
            "start_udp_port": 50000,
            "writer_user_id": 0,
            "module_positions": {"0": [0, 0, 1023, 7]},
        }
        self.config = DaqConfig.parse(values | settings)
        self.assembler = Assembler(self.config, n_slots, id_source=id_source)
        self.words = self.assembler.words

    def receive(self, frame: int, *packets: int, now: float = 0.0) -> None:
        """Let packets of a frame arrive, both when none is named, and let the loop turn."""
        datagrams = [sent(self.config, frame, 0, nth) for nth in packets or (0, 1)]
        self.assembler.receive(0, datagrams, int(now * SECOND))
        self.assembler.publish_ready(int(now * SECOND))

    def turn(self, now: float) -> None:
        self.assembler.publish_ready(int(now * SECOND))

    def published(self) -> list[int]:
        return [int(self.assembler.slot(s).frame) for s in range(self.assembler.n_published)]

    def in_run(self) -> list[int]:
        return [int(self.assembler.slot(s).frame) for s in self.assembler.run_images()]


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
    """The detector was stopped in the middle of frame 1 and armed again: its first packet tells."""
    bench = Bench()
    bench.receive(1, 0)
    bench.assembler.arm()
    bench.receive(1, 0)
    bench.receive(1, 1)
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


def test_a_run_ends_with_the_last_image_it_asked_for() -> None:
    bench = Bench()
    bench.assembler.arm(2)
    assert bench.words[Word.RUN_END] == NO_END
    for frame in (1, 2, 3):
        bench.receive(frame)
    assert bench.in_run() == [1, 2]
    assert bench.words[Word.RUN_END] == 2
    assert bench.words[Word.RUN_KEPT] == 2


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


def test_packets_are_counted_for_each_module_from_the_start_of_the_run() -> None:
    positions = {"0": [0, 0, 1023, 7], "1": [0, 8, 1023, 15]}
    bench = Bench(n_modules=2, module_positions=positions, image_pixel_height=16)
    bench.receive(1)
    bench.assembler.arm()
    bench.assembler.receive(1, [sent(bench.config, 2, 1, 0)])
    assert bench.assembler.ring.module_packets.tolist() == [0, 1]
