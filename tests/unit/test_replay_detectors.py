"""Record and replay know the packets of every detector: bit for bit, whole images counted, numbers rising."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daq_core.config import DaqConfig
from daq_core.detectors import format_of, layout_of
from daq_core.recordings.recorder import CompleteImages, RecordReport, record
from daq_core.recordings.recording import CONFIG_NAME, Recording, load_recording
from daq_core.recordings.replay import replay
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import free_ports

FIRST_PORT = 50201
COMMON = {"detector_name": "D", "start_udp_port": FIRST_PORT, "writer_user_id": 0, "bit_depth": 16}
GIGAFROST = COMMON | {
    "detector_type": "gigafrost",
    "image_pixel_height": 132,  # 33 rows a link: packets of 17 and 16
    "image_pixel_width": 504,
    "n_modules": 8,
    "module_positions": {},
}
JUNGFRAU = COMMON | {
    "detector_type": "jungfrau",
    "image_pixel_height": 16,
    "image_pixel_width": 1024,
    "n_modules": 1,
    "module_positions": {"0": [0, 0, 1023, 15]},
}
EIGER = COMMON | {
    "detector_type": "eiger",
    "image_pixel_height": 256,
    "image_pixel_width": 514,
    "n_modules": 1,
    "module_positions": {"0": [0, 0, 513, 255]},
}
MOENCH = COMMON | {
    "detector_type": "moench",
    "image_pixel_height": 400,
    "image_pixel_width": 400,
    "n_modules": 1,
    "module_positions": {"0": [0, 0, 399, 399]},
}
DETECTORS = {
    "eiger-4": EIGER | {"bit_depth": 4},
    "eiger-12": EIGER | {"bit_depth": 12},
    "eiger-32": EIGER | {"bit_depth": 32},
    "jungfrau": JUNGFRAU,
    "jungfrau, two interfaces": JUNGFRAU | {"n_udp_interfaces": 2},
    "gigafrost": GIGAFROST,
    "gigafrost, 16 ports": GIGAFROST | {"n_udp_ports": 16},
    "moench": MOENCH,
}
any_detector = pytest.mark.parametrize("kind", DETECTORS)


def datagrams_of(config: DaqConfig, image_id: int, *, rows: int | None = None) -> list[list[bytes]]:
    """Return what a simulator sends of an image, for each port."""
    simulator, form = Simulator(config, rows_per_packet=rows), format_of(config)
    packets = simulator.packets(image_id)
    return [
        [one[:n].tobytes() for one, n in zip(of_port, form.lengths(of_port, here), strict=True)]
        for of_port, here in zip(packets, simulator.layout.ports, strict=True)
    ]


def write_recording(folder: Path, config: DaqConfig, images: list[list[list[bytes]]]) -> Recording:
    folder.mkdir()
    (folder / CONFIG_NAME).write_text(config.as_json())
    for port, udp_port in enumerate(layout_of(config).udp_ports):
        records = [len(one).to_bytes(8, "little") + one for image in images for one in image[port]]
        (folder / f"{udp_port}.dat").write_bytes(b"".join(records))
    return load_recording(folder)


def recorded(
    config: DaqConfig, folder: Path, recording: Recording, n_images: int, **options: Any
) -> RecordReport:
    """Record what a replay sends, to free ports."""
    ports = layout_of(config).udp_ports
    offset = free_ports(len(ports), socket.SOCK_DGRAM) - ports[0]
    sending: list[threading.Thread] = []

    def send(n_complete: int) -> None:
        if not sending:
            options.setdefault("rate_hz", 50.0)
            sending.append(
                threading.Thread(target=replay, args=(recording,), kwargs=options | {"port_offset": offset})
            )
            sending[0].start()

    report = record(
        config,
        folder,
        udp_host="127.0.0.1",
        port_offset=offset,
        n_images=n_images,
        duration_s=20,
        progress=send,
    )
    sending[0].join()
    return report


def frame_numbers(config: DaqConfig, recording: Recording) -> list[int]:
    """Return the frame numbers of the first port that has any, each as often as it changes."""
    frames = np.concatenate([port.frames for port in recording.ports])
    return np.unique(frames).tolist()


@any_detector
def test_a_replay_recorded_again_is_the_same_to_the_bit(kind: str, tmp_path: Path) -> None:
    config = DaqConfig.parse(DETECTORS[kind])
    images = [datagrams_of(config, image_id) for image_id in (7, 8, 9)]
    sent = write_recording(tmp_path / "sent", config, images)
    report = recorded(config, tmp_path / "again", sent, 3)
    assert (report.n_images, report.n_packets, report.kernel_drops) == (3, sent.n_packets, 0)
    for udp_port in layout_of(config).udp_ports:
        name = f"{udp_port}.dat"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "sent" / name).read_bytes()


@any_detector
def test_numbers_go_on_rising_from_loop_to_loop_and_pixels_stay(kind: str, tmp_path: Path) -> None:
    config = DaqConfig.parse(DETECTORS[kind])
    sent = write_recording(tmp_path / "sent", config, [datagrams_of(config, i) for i in (7, 8)])
    report = recorded(config, tmp_path / "again", sent, 6, loops=3)
    assert report.n_images == 6
    again = load_recording(tmp_path / "again")
    assert frame_numbers(config, again) == [7, 8, 9, 10, 11, 12]
    n_header = format_of(config).header.itemsize
    for before, after in zip(sent.ports, again.ports, strict=True):
        n = len(before.offsets)
        pixels = [before.datagram(i)[n_header:] for i in range(n)]
        assert [after.datagram(i)[n_header:] for i in range(3 * n)] == pixels * 3


def test_a_gigafrosts_numbers_begin_again_where_32_bits_end(tmp_path: Path) -> None:
    config = DaqConfig.parse(GIGAFROST)
    first = 2**32 - 3
    sent = write_recording(tmp_path / "sent", config, [datagrams_of(config, first + i) for i in range(2)])
    assert recorded(config, tmp_path / "again", sent, 4, loops=2).n_images == 4
    assert frame_numbers(config, load_recording(tmp_path / "again")) == [0, first, first + 1, first + 2]


def test_on_16_ports_even_images_stay_on_their_ports_when_a_recording_is_looped(tmp_path: Path) -> None:
    """Of three images the second loop would begin with an odd number on the ports of even ones."""
    config = DaqConfig.parse(GIGAFROST | {"n_udp_ports": 16})
    sent = write_recording(tmp_path / "sent", config, [datagrams_of(config, i) for i in (2, 3, 4)])
    recorded(config, tmp_path / "again", sent, 6, loops=2)
    for i, port in enumerate(load_recording(tmp_path / "again").ports):
        assert set((port.frames % 2).tolist()) == {i // 8}


class Counted:
    """Counts complete images of datagrams that come one after the other."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.config = DaqConfig.parse(values)
        self._complete = CompleteImages(self.config)

    def receive(self, port: int, *datagrams: bytes) -> int:
        records = [len(one).to_bytes(8, "little") + one for one in datagrams]
        offsets = np.cumsum([0, *map(len, records)])
        self._complete.count(port, np.frombuffer(b"".join(records), np.uint8), offsets)
        return self._complete.n


@any_detector
def test_an_image_is_complete_with_its_last_packet_however_often_others_came(kind: str) -> None:
    counted = Counted(DETECTORS[kind])
    image = datagrams_of(counted.config, 4)
    packets = [(port, one) for port, of_port in enumerate(image) for one in of_port]
    for _ in range(2):
        for port, one in packets[1:]:
            assert counted.receive(port, one, one) == 0
    assert counted.receive(*packets[0]) == 1
    assert counted.receive(*packets[1]) == 1


def test_a_gigafrost_image_is_complete_however_its_sender_cuts_it() -> None:
    counted = Counted(GIGAFROST)
    for n, rows in enumerate((1, 7, 17, 19), 1):
        for port, of_port in enumerate(datagrams_of(counted.config, n, rows=rows)):
            counted.receive(port, *of_port)
        assert counted.receive(0) == n


def test_what_is_no_packet_completes_nothing() -> None:
    counted = Counted(JUNGFRAU)
    (packets,) = datagrams_of(counted.config, 4)
    assert counted.receive(0, *packets[1:], b"", b"x", packets[0][:-1], packets[0] + b"x") == 0
    other_number = bytearray(packets[0])
    other_number[12:16] = (127).to_bytes(4, "little")
    assert counted.receive(0, bytes(other_number)) == 0
    assert counted.receive(0, packets[0]) == 1
