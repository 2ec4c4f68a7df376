"""The simulator sends what its formats pack, at the rate asked for, and says what it sent."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daq_core import simulator as simulator_module
from daq_core.config import DaqConfig
from daq_core.detectors import format_of, layout_of
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.record import record
from daq_core.recording import load_recording
from daq_core.sender import TURN, Burst
from daq_core.simulator import CYCLES, Simulator
from ioc.ports import free_ports


def config(**changes: Any) -> DaqConfig:
    """A Jungfrau of two modules, the second upside down, with 16 and 8 rows and a gap between them."""
    values = {
        "detector_name": "JF-small",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": 30,
        "image_pixel_width": 1024,
        "n_modules": 2,
        "start_udp_port": free_ports(2, socket.SOCK_DGRAM),
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 1023, 15], "1": [1023, 29, 0, 22]},
    }
    return DaqConfig.parse(values | changes)


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


DETECTORS = [
    pytest.param(config, id="jungfrau"),
    *(pytest.param(lambda depth=depth: eiger(depth), id=f"eiger-{depth}") for depth in (8, 16, 32)),
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
        expected = [packet.tobytes() for image in packed for packet in image[port]]
        assert [received.datagram(i) for i in range(len(received.offsets))] == expected


@pytest.mark.parametrize("detector", DETECTORS)
def test_packets_of_images_that_follow_each_other_all_differ_in_their_pixels(detector: Any) -> None:
    simulator = Simulator(detector())
    for image_id in range(1, CYCLES[0] + 1):
        this, following = simulator.packets(image_id), simulator.packets(image_id + 1)
        for a, b in zip(this, following, strict=True):
            assert (a[:, 48:] != b[:, 48:]).any(axis=1).all()


@pytest.mark.parametrize("detector", DETECTORS)
def test_pixels_without_a_packet_are_zero_and_the_others_use_the_whole_range(detector: Any) -> None:
    settings = detector()
    image = Simulator(settings).image(5)
    covered = np.zeros(image.shape, bool)
    for x_start, y_start, x_end, y_end in settings.module_positions.values():
        columns = slice(min(x_start, x_end), max(x_start, x_end) + 1)
        covered[min(y_start, y_end) : max(y_start, y_end) + 1, columns] = True
        if settings.detector_type == "eiger":  # the gap between its two chips
            covered[:, min(x_start, x_end) + 256 : min(x_start, x_end) + 258] = False
    assert image.dtype == layout_of(settings).dtype
    assert not image[~covered].any()
    assert (image[covered] > 0).mean() > 0.95
    assert image.max() > np.iinfo(image.dtype).max // 2


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
