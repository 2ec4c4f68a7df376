"""In whatever order packets, runs and a slow writer come, compiled assembly and reference do the same."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daq_core.config import DaqConfig
from daq_core.kernels.compiling import JIT
from tests.assembly.assembler import Assembler, assert_agreement
from tests.assembly.assembly_bench import N_SLOTS, SECOND, sent
from tests.oracle.packets import datagram, packet_numbers
from tests.property.geometries import configs

pytestmark = pytest.mark.kernels


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

    @rule(ahead=st.integers(-2, 6), number=st.sampled_from([0, 61, 66, 127, 2**32 - 1]), data=st.data())
    def a_packet_of_another_format_arrives(self, ahead: int, number: int, data: st.DataObject) -> None:
        module, _ = data.draw(st.sampled_from(self.packets))
        one = datagram((self.base + ahead) % 2**64, number, bytes(8192))
        self.assembler.receive(module, [one], self.now)
        self.reference.receive(module, one, self.now)

    @rule(ahead=st.integers(0, 6), kind=st.sampled_from([0, 1, 3]), version=st.sampled_from([0, 1, 2]))
    def a_header_says_less_or_something_else(self, ahead: int, kind: int, version: int) -> None:
        module, nth = self.packets[0]
        one = bytearray(sent(self.config, (self.base + ahead) % 2**64, module, nth, self.edition))
        one[46:48] = kind, version
        self.assembler.receive(module, [bytes(one)], self.now)
        self.reference.receive(module, bytes(one), self.now)

    @rule()
    def the_loop_turns(self) -> None:
        self.publish()

    @rule(seconds=st.sampled_from([0.004, 0.01, 0.06, 0.2, 0.6, 5.0]))
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
