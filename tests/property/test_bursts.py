"""A detector that is armed again within a run loses nothing: bursts of any length, gaps, ports, threads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daq_core.kernels.compiling import JIT
from daq_core.ring.words import Arm, Word
from tests.assembly.burst_bench import MS, BurstBench, Packet, bursts

LONG = (pytest.mark.night, pytest.mark.timeout(900))
BURSTS, GAPS = (5, 20, 50, 51, 60), (10 * MS, 100 * MS, 1000 * MS)


def assert_all_taken(bench: BurstBench, n_images: int, n_bursts: int, first: int = 1) -> None:
    expected = [first + i for _ in range(n_bursts) for i in range(n_images)]
    assert bench.frames() == expected
    assert [image.bursts for image in bench.taken] == [{b} for b in range(n_bursts) for _ in range(n_images)]
    assert not any(image.n_missing for image in bench.taken)
    assert bench.words[Word.RESTARTS] == n_bursts - 1
    assert bench.words[Word.LATE] == bench.words[Word.DUPLICATE] == 0


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("n_images", BURSTS)
def test_bursts_of_one_module_are_all_taken(n_images: int, gap: int) -> None:
    bench = BurstBench(1)
    bench.run(bursts(n_images, 3, gap, 1))
    assert_all_taken(bench, n_images, 3)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("n_ports", [1, 2, 8])
@pytest.mark.parametrize("gap", [100 * MS, 1000 * MS])
def test_bursts_of_one_image_are_all_taken(n_ports: int, gap: int, n_threads: int) -> None:
    bench = BurstBench(n_ports, n_threads)
    bench.run(bursts(1, 10, gap, n_ports))
    assert_all_taken(bench, 1, 10)


MATRIX: dict[str, Any] = {
    "n_images": st.sampled_from(BURSTS),
    "n_bursts": st.integers(2, 10),
    "gap": st.sampled_from(GAPS),
    "n_ports": st.sampled_from([1, 2, 8]),
    "n_threads": st.integers(1, 4),
    "first": st.sampled_from([0, 1, 1000, 2**63]),
    "seed": st.integers(0, 2**32),
}


def take_bursts(
    n_images: int, n_bursts: int, gap: int, n_ports: int, n_threads: int, first: int, seed: int
) -> None:
    bench = BurstBench(n_ports, n_threads, seed)
    bench.run(bursts(n_images, n_bursts, gap, n_ports, first=first))
    assert_all_taken(bench, n_images, n_bursts, first)


@given(**MATRIX)
@settings(max_examples=10 if JIT else 3, deadline=None)
def test_bursts_are_all_taken_in_the_order_of_arrival(**point: int) -> None:
    assume(point["n_images"] * point["n_bursts"] * point["n_ports"] <= 400)
    take_bursts(**point)


@pytest.mark.night
@pytest.mark.timeout(1800)
@given(**MATRIX)
@settings(max_examples=150, deadline=None)
def test_bursts_of_the_whole_matrix_are_all_taken(**point: int) -> None:
    take_bursts(**point)


@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize(
    ("n_images", "gap"),
    [
        (5, 10 * MS),
        (1, 100 * MS),
        pytest.param(51, 100 * MS, marks=LONG),
        pytest.param(60, 1000 * MS, marks=LONG),
    ],
)
def test_bursts_of_72_modules_are_all_taken(n_images: int, gap: int, n_threads: int) -> None:
    bench = BurstBench(72, n_threads)
    bench.run(bursts(n_images, 2, gap, 72))
    assert_all_taken(bench, n_images, 2)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_bursts_that_waited_in_the_sockets_are_all_taken(n_threads: int) -> None:
    """The receiver stood still over several of them: no pause is to be seen any more."""
    sent = bursts(5, 6, 20 * MS, 2)
    bench = BurstBench(2, n_threads)
    bench.run(sent, still=[(sent[5].time, sent[-8].time)])
    assert_all_taken(bench, 5, 6)


def test_a_receiver_that_stood_still_takes_nothing_for_a_pause() -> None:
    """A repeated packet that waited in the socket, with the same number, is no new image."""
    sent = bursts(3, 1, 0, 1)
    end = sent[-1].time
    again = Packet(end + 20 * MS, 0, 3, 1, 0)
    bench = BurstBench(1)
    bench.run([*sent, again], still=[(end + 10 * MS, end + 200 * MS)])
    assert bench.frames() == [1, 2, 3]
    assert bench.words[Word.LATE] == 1


def lagging(packets: list[Packet], port: int, n_images: int) -> list[Packet]:
    """Let a port's packets come later by so many images."""
    return [
        Packet(p.time + (n_images * 2 * MS if p.port == port else 0), p.port, p.frame, p.nth, p.burst)
        for p in packets
    ]


@pytest.mark.parametrize(
    ("lag", "n_ports"),
    [
        (60, 2),
        (120, 2),
        pytest.param(60, 8, marks=LONG),
        pytest.param(120, 8, marks=LONG),
        pytest.param(400, 2, marks=LONG),
        pytest.param(6000, 2, marks=LONG),
    ],
)
def test_a_module_that_lags_makes_no_restart_and_no_number_twice(lag: int, n_ports: int) -> None:
    bench = BurstBench(n_ports)
    bench.run(lagging(bursts(200 + lag, 1, 0, n_ports), 1, lag))
    frames = bench.frames()
    assert len(set(frames)) == len(frames)
    assert bench.words[Word.RESTARTS] == 0
    behind = bench.assembler.ring.arms[:, Arm.BEHIND].tolist()
    assert abs(behind[1] - lag) <= 2
    assert not any(behind[:1] + behind[2:])


@pytest.mark.parametrize(
    ("offset", "n_images"),
    [(60, 150), (100_000, 150), pytest.param(500, 600, marks=LONG), pytest.param(100_000, 600, marks=LONG)],
)
def test_a_module_that_counts_from_elsewhere_makes_no_restart_and_no_number_twice(
    offset: int, n_images: int
) -> None:
    sent = [
        Packet(p.time, p.port, p.frame + (offset if p.port == 1 else 0), p.nth, p.burst)
        for p in bursts(n_images, 1, 0, 2)
    ]
    bench = BurstBench(2)
    bench.run(sent)
    frames = bench.frames()
    assert len(set(frames)) == len(frames)
    assert bench.words[Word.RESTARTS] == 0


@pytest.mark.parametrize("far", [5000, 2**63, 2**64 - 1])
def test_a_stray_far_number_and_a_duplicate_make_no_image_twice(far: int) -> None:
    sent = bursts(55, 1, 0, 1, first=1000)
    stray = Packet(sent[100].time - 1000, 0, far, 0, 0)
    duplicate = Packet(sent[-1].time + 50 * MS, 0, 1030, 0, 0)
    bench = BurstBench(1)
    bench.run([*sent, stray, duplicate])
    assert bench.frames() == [*range(1000, 1055)]
    assert bench.words[Word.RESTARTS] == 0
    assert bench.words[Word.LATE] == 2


def test_numbers_that_jump_ahead_are_taken_when_a_second_packet_says_so() -> None:
    sent = [
        Packet(p.time, p.port, p.frame + (5000 if p.frame > 10 else 0), p.nth, p.burst)
        for p in bursts(20, 1, 0, 2)
    ]
    bench = BurstBench(2)
    bench.run(sent)
    assert bench.frames() == [*range(1, 11), *range(5011, 5021)]
    assert not any(image.n_missing for image in bench.taken)
    assert bench.words[Word.RESTARTS] == 0


def test_a_port_that_missed_a_burst_finds_the_next() -> None:
    sent = [p for p in bursts(20, 4, 1000 * MS, 2) if not (p.burst == 1 and p.port == 1)]
    bench = BurstBench(2)
    bench.run(sent)
    assert bench.frames() == [*range(1, 21)] * 4
    assert [image.n_missing for image in bench.taken] == [2 * (20 <= i < 40) for i in range(80)]
    assert [image.bursts for image in bench.taken] == [{i // 20} for i in range(80)]


def test_a_module_that_is_armed_again_alone_stays_alone() -> None:
    """The others count on: nothing is put together that does not belong together."""
    both, alone = bursts(120, 1, 0, 2, first=500), bursts(30, 4, 20 * MS, 2)
    sent = [p for p in both if p.port == 0] + [p for p in alone if p.port == 1]
    bench = BurstBench(2)
    bench.run(sent)
    assert all(image.n_missing == 2 for image in bench.taken)
    assert bench.words[Word.RESTARTS] == 3
    assert sorted(bench.frames()) == sorted([*range(500, 620), *[*range(1, 31)] * 4])
