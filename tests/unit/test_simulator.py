"""The simulator sends what its formats pack, at the rate asked for, and says what it sent."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daq_core.config import DaqConfig
from daq_core.detectors import format_of, layout_of
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.recordings.recorder import record
from daq_core.recordings.recording import load_recording
from daq_core.simulating import simulator as simulator_module
from daq_core.simulating.sender import TURN, Burst
from daq_core.simulating.simulator import CYCLES, Simulator
from ioc.program.ports import free_ports
from tests.daq.small_jungfrau import small_jungfrau


def config(**changes: Any) -> DaqConfig:
    """A Jungfrau whose second module is upside down, with a gap between them."""
    values = {"image_pixel_height": 30, "module_positions": {"0": [0, 0, 1023, 15], "1": [1023, 29, 0, 22]}}
    return small_jungfrau(**(values | changes))


def eiger(bit_depth: int) -> DaqConfig:
    """Two half modules side by side, the second turned by 180°, gaps between and below them."""
    return config(
        detector_name="EG-small",
        detector_type="eiger",
        bit_depth=bit_depth,
        image_pixel_height=260,
        image_pixel_width=1036,
        module_positions={"0": [0, 0, 513, 255], "1": [1035, 259, 522, 4]},
    )


def two_interfaces() -> DaqConfig:
    return config(n_udp_interfaces=2, start_udp_port=free_ports(4, socket.SOCK_DGRAM))


def gigafrost(n_udp_ports: int = 8) -> DaqConfig:
    return config(
        detector_name="GF-small",
        detector_type="gigafrost",
        image_pixel_height=132,
        image_pixel_width=504,
        n_modules=8,
        n_udp_ports=n_udp_ports,
        start_udp_port=free_ports(n_udp_ports, socket.SOCK_DGRAM),
        module_positions={},
    )


def moench() -> DaqConfig:
    return config(
        detector_name="M",
        detector_type="moench",
        image_pixel_height=400,
        image_pixel_width=801,
        module_positions={"0": [0, 0, 399, 399], "1": [800, 0, 401, 399]},
    )


DETECTORS = [
    pytest.param(config, id="jungfrau"),
    pytest.param(two_interfaces, id="jungfrau, two interfaces"),
    *(pytest.param(lambda depth=depth: eiger(depth), id=f"eiger-{depth}") for depth in (4, 8, 12, 16, 32)),
    pytest.param(gigafrost, id="gigafrost"),
    pytest.param(lambda: gigafrost(16), id="gigafrost, 16 ports"),
    pytest.param(moench, id="moench"),
]


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_is_sent_is_what_the_format_packs_of_the_image(detector: Any, tmp_path: Path) -> None:
    """Over more than a cycle of pictures, so that headers of packets sent before are stamped anew."""
    settings = detector()
    simulator = Simulator(settings, seed=3)
    n_images = 2 * CYCLES[0] + 1
    sent = []

    def send(n_complete: int) -> None:
        if n_complete == 0:
            sender.start()

    sender = threading.Thread(target=lambda: sent.append(simulator.send(n_images, 20.0, first_id=41)))
    recorded = record(
        settings, tmp_path / "run", udp_host="127.0.0.1", n_images=n_images, duration_s=30, progress=send
    )
    sender.join()
    assert recorded.n_images == sent[0].n_images == n_images
    assert recorded.n_packets == sent[0].n_packets
    assert sent[0].n_refused == 0

    layout, form = layout_of(settings), format_of(settings)
    ids = range(41, 41 + n_images)
    packed = [form.pack(simulator.image(image_id), layout, image_id) for image_id in ids]
    for port, received in enumerate(load_recording(tmp_path / "run").ports):
        here = layout.ports[port]
        expected = [
            packet[:n].tobytes()
            for image in packed
            for packet, n in zip(image[port], form.lengths(image[port], here), strict=True)
        ]
        assert [received.datagram(i) for i in range(len(received.offsets))] == expected


@pytest.mark.parametrize("detector", DETECTORS)
def test_packets_of_images_that_follow_each_other_all_differ_in_their_pixels(detector: Any) -> None:
    settings = detector()
    simulator = Simulator(settings)
    n_header, turns = format_of(settings).header.itemsize, simulator.layout.turns
    for image_id in range(1, CYCLES[0] + 1):
        this, following = simulator.packets(image_id), simulator.packets(image_id + turns)
        for a, b in zip(this, following, strict=True):
            assert (a[:, n_header:] != b[:, n_header:]).any(axis=1).all()


@pytest.mark.parametrize("detector", DETECTORS)
def test_pixels_without_a_packet_are_zero_and_the_others_use_the_whole_range(detector: Any) -> None:
    settings = detector()
    image = Simulator(settings).image(5)
    covered = np.full(image.shape, not settings.module_positions)
    for x_start, y_start, x_end, y_end in settings.module_positions.values():
        columns = slice(min(x_start, x_end), max(x_start, x_end) + 1)
        covered[min(y_start, y_end) : max(y_start, y_end) + 1, columns] = True
        if settings.detector_type == "eiger":  # the gap between its two chips
            covered[:, min(x_start, x_end) + 256 : min(x_start, x_end) + 258] = False
    assert image.dtype == layout_of(settings).dtype
    assert not image[~covered].any()
    n_bits = layout_of(settings).pixel_bits
    assert (image[covered] > 0).mean() > (0.95 if n_bits > 4 else 0.5)
    assert 2 ** (n_bits - 1) < image.max() < 2**n_bits


def test_each_module_shows_its_number_upright_even_where_it_is_mounted_upside_down() -> None:
    """Bright in the shape of the digit, in the middle of the module; there is the same for every mounting."""
    positions = {"0": [0, 0, 399, 399], "1": [800, 399, 401, 0], "7": [1201, 0, 802, 399]}
    settings = moench().merge({"image_pixel_width": 1202, "n_modules": 8, "module_positions": positions})
    image = Simulator(settings).image(1)
    bright = image > 0.6 * 2**16
    for left, digit in (
        (0, "### #.# #.# #.# ###"),
        (401, ".#. ##. .#. .#. ###"),
        (802, "### ..# .#. .#. .#."),
    ):
        shape = np.array([[cell == "#" for cell in row] + [False] for row in digit.split()])
        shape = np.kron(shape, np.ones((20, 20), bool))
        found = bright[150:250, left + 160 : left + 240]
        assert (found == shape).mean() > 0.9


def test_the_links_of_a_gigafrost_show_both_their_numbers() -> None:
    image = Simulator(gigafrost()).image(1)
    quadrants = [image[66:, :252], image[66:, 252:], image[:66, :252], image[:66, 252:]]
    middles = [q[q.shape[0] // 2 - 8 : q.shape[0] // 2 + 8, 110:142] > 0.6 * 2**12 for q in quadrants]
    assert all(middle.any() for middle in middles)
    assert all((a != b).any() for a in middles for b in middles if a is not b)


def test_a_gigafrost_can_be_sent_as_other_senders_cut_it() -> None:
    settings = gigafrost()
    camera, other = Simulator(settings), Simulator(settings, rows_per_packet=19)
    assert [len(packets) for packets in camera.packets(1)] == [2] * 8  # 17 and 16 of 33 rows
    first_rows = other.packets(1)[0][:, 14:16].copy().view("<u2")[:, 0]
    assert first_rows.tolist() == [0, 19]
    np.testing.assert_array_equal(camera.image(1), other.image(1))


@pytest.mark.parametrize("rows", [0, 20])
def test_rows_that_do_not_fit_into_a_datagram_are_refused(rows: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"a datagram holds 1 to 19 rows .* got {rows}\."):
        Simulator(gigafrost(), rows_per_packet=rows)


def test_only_a_gigafrost_has_rows_per_packet_and_images_not_to_be_stored() -> None:
    with pytest.raises(InvalidRequest, match="of type jungfrau has packets of the same size"):
        Simulator(config(), rows_per_packet=4)
    with pytest.raises(InvalidRequest, match="of type jungfrau marks no image"):
        Simulator(config(), unwanted={3})


def test_images_are_marked_as_not_to_be_stored_one_by_one(tmp_path: Path) -> None:
    """Also where packets of the same picture were sent before, marked or not."""
    settings = gigafrost(16)
    simulator = Simulator(settings, unwanted={1, 4, 20})
    threads = []

    def send(n_complete: int) -> None:
        if n_complete == 0:
            threads.append(threading.Thread(target=simulator.send, args=(32, 100.0)))
            threads[-1].start()

    record(settings, tmp_path / "r", udp_host="127.0.0.1", n_images=32, duration_s=30, progress=send)
    threads[0].join()
    header = format_of(settings).header
    marked = set()
    for port in load_recording(tmp_path / "r").ports:
        for i in range(len(port.offsets)):
            fields = np.frombuffer(port.datagram(i), header, 1)[0]
            if fields["image_status"] == 0x8000:
                marked.add(int(fields["frame_number"]))
    assert marked == {1, 4, 20}


def test_an_image_follows_from_config_seed_and_id() -> None:
    settings = config()
    assert (Simulator(settings, seed=1).image(9) == Simulator(settings, seed=1).image(9)).all()
    assert (Simulator(settings, seed=1).image(9) != Simulator(settings, seed=2).image(9)).any()


def test_a_jungfrau_carries_the_image_id_as_bunch_id_too() -> None:
    headers = Simulator(config()).packets(77)[0][:, 16:24].copy().view("<f8")
    assert (headers == 77.0).all()


def test_packets_belong_to_the_caller() -> None:
    simulator = Simulator(config())
    simulator.packets(1)[0][:] = 0
    assert simulator.packets(1)[0].any()


def test_ports_take_turns_of_a_few_packets() -> None:
    burst = Burst.of_packets([np.zeros((2 * TURN + 1, 8), np.uint8), np.zeros((TURN, 8), np.uint8)])
    assert burst.turns.tolist() == [
        [0, 0, TURN],
        [1, 2 * TURN + 1, TURN],
        [0, TURN, TURN],
        [0, 2 * TURN, 1],
    ]


def test_that_nobody_listens_is_counted_and_no_error() -> None:
    report = Simulator(config()).send(5, 0)
    assert report.n_images == 5
    assert report.n_packets == 5 * 6
    assert report.n_refused > 0


def test_images_come_at_the_rate_asked_for_and_their_packets_are_spread_over_it() -> None:
    settings = config()
    report = Simulator(settings).send(1, 20.0)
    assert report.seconds > 0.015  # of two turns the second is sent in the middle of 40 ms
    report = Simulator(settings).send(11, 100.0)
    assert report.seconds >= 0.1
    assert report.rate_hz < 101


def test_stop_ends_an_endless_sending_after_the_present_image() -> None:
    stop = threading.Event()
    seen: list[int] = []

    def progress(n_images: int) -> None:
        seen.append(n_images)
        if n_images == 4:
            stop.set()

    assert Simulator(config()).send(0, 0, progress=progress, stop=stop).n_images == 4
    assert seen == [1, 2, 3, 4]


def test_a_stopped_wait_ends_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    report = Simulator(config()).send(2, 0.01, stop=stop)
    assert report.n_images == 1
    assert report.seconds < 10


def test_the_pictures_of_a_large_detector_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config()
    image_bytes = sum(packets.nbytes for packets in Simulator(settings).packets(1))
    for n_that_fit, n_pictures in ((100, 7), (6, 5), (4, 3), (1, 2)):
        monkeypatch.setattr(simulator_module, "MAX_CYCLE_BYTES", n_that_fit * image_bytes)
        assert Simulator(settings).n_pictures == n_pictures


def test_a_port_offset_moves_every_port() -> None:
    settings = config(start_udp_port=2000)
    port = free_ports(2, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", port + 1))
        receiver.settimeout(5)
        Simulator(settings, port_offset=port - 2000).send(1, 0, first_id=6)
        assert receiver.recv(10000) == Simulator(settings).packets(6)[1][0].tobytes()


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InvalidRequest, match="rate"):
        Simulator(config()).send(1, rate)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="n_images"):
        Simulator(config()).send(-1, 1)
    with pytest.raises(InvalidRequest, match=r"UDP ports .* not all in 1\.\.65535"):
        Simulator(config(), port_offset=65000).send(1, 1)


def test_a_host_that_cannot_be_is_a_clear_error() -> None:
    with pytest.raises(Unavailable, match=r"cannot send to no\.\.host: "):
        Simulator(config(), host="no..host").send(1, 1)
