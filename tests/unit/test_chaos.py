"""The chaos stage makes the faults it was asked for, the same for a seed, and tells the truth of them."""

from __future__ import annotations

import itertools
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daq_core.config import DaqConfig
from daq_core.detectors import format_of
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.simulating.fault_stage import MAX_BURST, MAX_HELD, ChaosStage, SentPacket
from daq_core.simulating.faults import IMAGE_FAULTS, PACKET_FAULTS, Chaos
from daq_core.simulating.simulator import Simulator
from ioc.program.packets import simulate
from ioc.program.ports import LOOPBACK
from tests.daq.small_jungfrau import small_jungfrau
from tests.machine.judges import absent
from tests.oracle.packets import HEADER
from tests.property.geometries import gigafrost

N_PACKETS = 6  # of one image: 4 and 2
N_BYTES = 8240
HELD_BYTES = 2**22  # twice what 20 images with all faults take, as the kernel counts them
SO_RCVBUFFORCE = 33  # socket(7)


def sent(chaos: str, n_images: int = 200, settings: DaqConfig | None = None) -> list[SentPacket]:
    """Send images as fast as possible, to nobody; return what was told of each packet."""
    told: list[SentPacket] = []
    simulator = Simulator(settings or small_jungfrau(), chaos=Chaos.parse(chaos), tell=told.append)
    report = simulator.send(n_images, 0)
    assert report.n_images == n_images
    assert report.n_packets == sum(packet.datagram is not None for packet in told)
    return told


def faults(told: list[SentPacket]) -> Counter[str]:
    return Counter(fault for packet in told for fault in packet.faults)


def frames(told: list[SentPacket]) -> list[int]:
    """Return the frame number of each image, in order."""
    return list({packet.image_id: packet.frame for packet in told}.values())


def header(packet: SentPacket) -> tuple[int, ...]:
    assert packet.datagram is not None
    return HEADER.unpack_from(packet.datagram)


# ---------------------------------------------------------------- what is asked for


def test_what_is_written_is_read() -> None:
    chaos = Chaos.parse(" seed=7, loss=0.25,silent=1,wrap=1,foreign_address=127.0.0.9 ")
    assert chaos == Chaos(seed=7, loss=0.25, silent=1, wrap=1, foreign_address="127.0.0.9")
    assert Chaos.parse(str(chaos)) == chaos
    assert Chaos.parse("") == Chaos()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("los=0.1", "there is no 'los'; did you mean loss?"),
        ("zzz=1", "there is no 'zzz'; known are seed, "),
        ("loss", "loss needs a value, as in loss=0.01"),
        ("loss=", "loss needs a value"),
        ("loss=0.1,loss=0.2", "loss is given twice"),
        ("loss=1.5", "loss must be a chance of 0 to 1, got '1.5'"),
        ("loss=nan", "a chance of 0 to 1"),
        ("loss=much", "a chance of 0 to 1"),
        ("seed=-1", "seed must be a whole number of 0 or more, got '-1'"),
        ("silent=x", "a whole number of 0 or more"),
        ("wrap=2", "wrap must be 0 or 1, got '2'"),
        ("silent=5", "silent=5: there is no such module; there are 0, 1"),
        ("lag=5", "lag=5: there is no such module; there are 0, 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Simulator(small_jungfrau(), chaos=Chaos.parse(text))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_that_a_detector_cannot_have_are_refused() -> None:
    alone = small_jungfrau(n_modules=1, module_positions={"0": [0, 0, 1023, 15]})
    with pytest.raises(InvalidRequest, match="two UDP ports or more"):
        Simulator(alone, chaos=Chaos(wrong_port=0.1))
    camera = DaqConfig.parse(
        {
            "detector_name": "camera",
            "detector_type": "bsread",
            "bit_depth": 16,
            "image_pixel_height": 24,
            "image_pixel_width": 32,
            "n_modules": 1,
            "start_udp_port": 9998,
            "module_positions": {},
            "stream_addresses": ["tcp://127.0.0.1:9999"],
            "writer_user_id": 0,
        }
    )
    with pytest.raises(InvalidRequest, match="sends messages"):
        Simulator(camera, chaos=Chaos())
    with pytest.raises(Unavailable, match=r"from 198\.51\.100\.1 too"):
        Simulator(small_jungfrau(), chaos=Chaos(foreign=0.1, foreign_address="198.51.100.1")).send(1, 0)


# ---------------------------------------------------------------- what is done


def test_without_faults_every_packet_is_sent_as_it_is_and_in_its_order() -> None:
    settings = small_jungfrau()
    told = sent("seed=3", 10, settings)
    assert not faults(told)
    plain = Simulator(settings)
    for image_id in range(1, 11):
        of_image = [packet for packet in told if packet.image_id == image_id]
        assert [(p.port, p.place) for p in of_image] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
        for packet in of_image:
            np.testing.assert_array_equal(packet.datagram, plain.packets(image_id)[packet.port][packet.place])


def test_the_same_seed_makes_the_same_faults_and_another_one_others() -> None:
    every = ",".join(f"{name}=0.05" for name in (*PACKET_FAULTS, *IMAGE_FAULTS))
    settings = small_jungfrau()

    def all_of(seed: int) -> list[Any]:
        told = sent(f"seed={seed},{every}", 100, settings)
        return [(p[1:6], None if p.datagram is None else p.datagram.tobytes()) for p in told]

    assert all_of(4) == all_of(4)
    assert all_of(4) != all_of(5)


@pytest.mark.parametrize("fault", PACKET_FAULTS)
def test_a_fault_happens_as_often_as_its_chance_says_and_no_other(fault: str) -> None:
    told = sent(f"seed=1,{fault}=0.1")
    n = faults(told)
    assert set(n) == {fault}
    assert 60 < n[fault] < 190  # of 1200


def test_a_fault_is_what_it_is_called() -> None:
    told = sent("seed=2,loss=0.1,corrupt=0.1,truncate=0.1,oversize=0.1,number=0.1,wrong_port=0.1", 300)
    plain = Simulator(small_jungfrau())
    for packet in told:
        whole = plain.packets(packet.image_id)
        kinds = set(packet.faults)
        if kinds == {"loss"}:
            assert packet.datagram is None
            continue
        assert packet.datagram is not None
        if kinds == {"truncate"}:
            assert len(packet.datagram) < N_BYTES
        elif kinds == {"oversize"}:
            assert N_BYTES < len(packet.datagram) <= N_BYTES + 8
        elif kinds == {"number"}:
            assert header(packet)[2] == 2**32 - 1
        elif kinds == {"corrupt"}:
            (differing,) = np.flatnonzero(packet.datagram != whole[packet.port][packet.place])
            assert differing >= HEADER.size
        elif kinds == {"wrong_port"}:
            np.testing.assert_array_equal(packet.datagram, whole[1 - packet.port][packet.place])
        elif not kinds:
            np.testing.assert_array_equal(packet.datagram, whole[packet.port][packet.place])


def test_late_and_delayed_packets_come_a_few_images_later() -> None:
    for fault, n_each in (("late", 2), ("delay", 1)):
        told = sent(f"seed=5,{fault}=0.2")
        lag, newest = [], 0
        for packet in told:
            newest = max(newest, packet.image_id)
            if fault in packet.faults:
                lag.append(newest - packet.image_id)
        assert set(lag) <= set(range(MAX_HELD + 1))  # 0: at the very end
        assert set(lag) >= {1, 2, 3}
        n_sent = Counter((packet.image_id, packet.port, packet.place) for packet in told)
        assert len(n_sent) == 200 * N_PACKETS
        assert set(n_sent.values()) == set(range(1, n_each + 1))


def test_a_duplicate_is_the_same_packet_again() -> None:
    told = sent("seed=5,duplicate=0.3")
    copies = [packet for packet in told if packet.faults]
    for copy in copies:
        twins = [p for p in told if p[1:5] == copy[1:5]]
        assert len(twins) == 2
        np.testing.assert_array_equal(twins[0].datagram, twins[1].datagram)


def test_a_packet_that_changed_its_place_is_still_of_its_image() -> None:
    told = sent("seed=6,reorder=0.3", 50)
    assert [packet.image_id for packet in told] == sorted(packet.image_id for packet in told)
    assert any(
        (a.port, a.place) > (b.port, b.place) for a, b in itertools.pairwise(told) if a.image_id == b.image_id
    )


def test_the_last_packet_of_each_port_can_come_first() -> None:
    told = sent("last_first=1", 3)
    order = [(p.port, p.place) for p in told if p.image_id == 2]
    assert order == [(0, 3), (1, 1), (0, 0), (0, 1), (0, 2), (1, 0)]


def test_frame_numbers_jump_begin_again_and_wrap() -> None:
    steps = np.diff(frames(sent("seed=1,ahead=0.2")))
    assert set(steps[steps != 1]) <= set(range(2, 1002))
    assert (steps != 1).sum() > 20
    steps = np.diff(frames(sent("seed=1,back=0.1,ahead=0.5")))
    assert (steps < 0).sum() > 5
    numbers = frames(sent("seed=1,restart=0.1"))
    assert numbers.count(0) > 5
    assert all(b in (0, a + 1) for a, b in itertools.pairwise(numbers))
    assert frames(sent("wrap=1", 5)) == [2**64 - 3, 2**64 - 2, 2**64 - 1, 0, 1]
    assert [header(packet)[0] for packet in sent("wrap=1", 4)][::N_PACKETS] == [
        2**64 - 3,
        2**64 - 2,
        2**64 - 1,
        0,
    ]


def test_a_detector_that_is_armed_again_pauses_and_begins_with_its_first_number() -> None:
    told = sent("seed=1,rearm=0.1,late=0.2,delay=0.2", 60)
    numbers = frames(told)
    assert numbers[0] == 1
    assert numbers.count(1) > 3
    assert all(b in (1, a + 1) for a, b in itertools.pairwise(numbers))
    arm, time_s = 1, told[0].time_s
    for packet in told:
        now = numbers[: packet.image_id].count(1)
        if packet.datagram is not None and now > arm:
            assert packet.time_s - time_s >= 0.02
        assert now >= arm, "a packet of the arm before came after the pause"
        arm, time_s = now, packet.time_s


def test_behind_an_arm_of_one_image_the_pause_is_longer_than_a_copy_may_come_late() -> None:
    told = sent("seed=1,rearm=1", 4)
    assert set(frames(told)) == {1}
    begins = sorted({packet.time_s for packet in told})
    assert all(b - a >= 0.06 for a, b in itertools.pairwise(begins))


def test_a_stray_packet_is_sent_once_more_under_a_number_far_ahead() -> None:
    told = sent("seed=1,stray=0.1", 50)
    strays = [packet for packet in told if "stray" in packet.faults]
    assert len(strays) > 10
    for stray in strays:
        assert stray.frame - stray.image_id >= 10_000
        assert header(stray)[0] == stray.frame
    assert frames([packet for packet in told if packet not in strays]) == [*range(1, 51)]


def test_a_module_counts_from_elsewhere_or_lags() -> None:
    told = sent("apart=1", 3)
    assert {(p.port, p.frame - p.image_id) for p in told} == {(0, 0), (1, 1000)}
    assert {(p.port, header(p)[0] - p.image_id) for p in told} == {(0, 0), (1, 1000)}
    told = sent("lag=1", 100)
    at_81 = [p.image_id for p in told[: told.index(next(p for p in told if p.image_id == 82))]]
    assert [p.image_id for p in told if p.port == 1] == sorted(p.image_id for p in told if p.port == 1)
    assert sorted(set(at_81)) == [*range(1, 82)]
    first = next(i for i, p in enumerate(told) if p.port == 1)
    assert told[first - 1].image_id == 81


def test_even_and_odd_images_keep_their_ports_through_every_jump() -> None:
    """A GigaFRoST with 16 ports: frame numbers are 32 bits wide, and their parity says to which eight."""
    camera = gigafrost(image_pixel_height=132, image_pixel_width=504, n_udp_ports=16)
    told = sent("seed=1,wrap=1,ahead=0.2,back=0.2,restart=0.1,rearm=0.05,stray=0.01", 100, camera)
    form = format_of(camera)
    for packet in told:
        assert packet.datagram is not None
        assert packet.frame % 2 == packet.image_id % 2 == packet.port // 8
        assert packet.datagram[: form.header.itemsize].view(form.header)["frame_number"][0] == packet.frame


def test_the_last_packet_of_the_last_image_can_be_lost_and_so_can_a_module() -> None:
    told = sent("lose_last=1,duplicate=1,late=1", 3)
    lost = {(p.image_id, p.port, p.place) for p in told if p.datagram is None}
    assert lost == {(3, 1, 1)}
    assert not any(p.datagram is not None and (p.image_id, p.port, p.place) in lost for p in told)
    told = sent("silent=1", 3)
    assert {(p.port, p.datagram is None) for p in told} == {(0, False), (1, True)}


def test_a_burst_is_several_images_at_once() -> None:
    """They go out with the last of them: between them is no time at all."""
    told = sent("seed=1,burst=0.1", 300)
    sizes = Counter(Counter({p.image_id: p.time_s for p in told}).values()).values()
    assert 2 <= max(sizes) <= MAX_BURST
    assert len(told) == 300 * N_PACKETS


# ---------------------------------------------------------------- what arrives


@contextmanager
def waiting_room(port: int) -> Iterator[socket.socket]:
    """A socket that holds all that the test sends before somebody reads it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        try:
            receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, HELD_BYTES)
        except PermissionError:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD_BYTES)
        if receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < HELD_BYTES:
            absent("sockets", f"a receive buffer of {HELD_BYTES} bytes is not granted")
        receiver.bind((LOOPBACK, port))
        receiver.settimeout(5)
        yield receiver


def test_what_arrives_is_what_was_told_and_from_whom() -> None:
    settings = small_jungfrau()
    told: list[SentPacket] = []
    every = ",".join(f"{name}=0.1" for name in PACKET_FAULTS)
    simulator = Simulator(settings, chaos=Chaos.parse(f"seed=9,burst=0.1,{every}"), tell=told.append)
    with ExitStack() as open_sockets:
        receivers = [open_sockets.enter_context(waiting_room(port)) for port in simulator.ports]
        simulator.send(20, 0)
        for port, receiver in enumerate(receivers):
            for packet in [p for p in told if p.port == port and p.datagram is not None]:
                data, (address, _) = receiver.recvfrom(10_000)
                assert data == packet.datagram.tobytes()
                assert address == ("127.0.0.2" if "foreign" in packet.faults else LOOPBACK)
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(1)
    assert simulator.chaos is not None
    assert set(simulator.chaos.counts) >= set(PACKET_FAULTS)


def test_the_command_writes_a_line_for_every_packet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small_jungfrau()
    (tmp_path / "config.json").write_text(json.dumps(settings.as_dict()))
    log = tmp_path / "packets.jsonl"
    arguments: dict[str, Any] = {
        "config": tmp_path / "config.json",
        "rate": 0,
        "images": 50,
        "chaos_log": log,
    }
    simulate(**arguments, chaos="seed=1,loss=0.1")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    n_lost = sum(line["faults"] == ["loss"] and line["bytes"] is None for line in lines)
    assert len(lines) == 50 * N_PACKETS
    assert f"chaos: loss {n_lost}\n" in capsys.readouterr().out
    with pytest.raises(Unavailable, match="File exists"):
        simulate(**arguments, chaos="loss=0.1")
    with pytest.raises(InvalidRequest, match="give both, or neither"):
        simulate(**arguments)


def test_a_stage_that_is_told_nothing_still_counts() -> None:
    settings = small_jungfrau()
    stage = ChaosStage(Chaos(loss=1.0), format_of(settings), Simulator(settings).layout)
    packets = Simulator(settings).packets(1)
    (burst,) = stage.bursts([(1, 1, packets, [np.full(len(p), p.shape[1]) for p in packets])])
    assert len(burst.turns) == 0
    assert stage.counts == {"loss": N_PACKETS}
