"""Facts of each detector's wire format, one by one, with the numbers of the contract."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from daq_core.config import DaqConfig
from daq_core.detectors import format_of, gigafrost, layout_of
from daq_core.detectors.packed import pack_pixels
from daq_core.errors import InvalidConfig
from daq_core.ring.ring import COMPLETE, SKIPPED
from daq_core.ring.words import Word
from tests.assembly.assembler import Assembler
from tests.oracle.frames import camera_rows, frames_of, simulator_rows

VECTOR = bytes.fromhex("012220034220")
VECTOR_PIXELS = [513, 514, 515, 516]


def camera(width: int = 72, height: int = 8, **changes: Any) -> DaqConfig:
    values = {
        "detector_name": "GF",
        "detector_type": "gigafrost",
        "bit_depth": 16,
        "image_pixel_height": height,
        "image_pixel_width": width,
        "n_modules": 8,
        "start_udp_port": 50000,
        "writer_user_id": 0,
        "module_positions": {},
    }
    return DaqConfig.parse(values | changes)


def half_module(bit_depth: int, **changes: Any) -> DaqConfig:
    values = {
        "detector_name": "EG",
        "detector_type": "eiger",
        "bit_depth": bit_depth,
        "image_pixel_height": 256,
        "image_pixel_width": 514,
        "n_modules": 1,
        "start_udp_port": 50000,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 513, 255]},
    }
    return DaqConfig.parse(values | changes)


def jungfrau(rows: int, interfaces: int) -> DaqConfig:
    values = {"detector_name": "JF", "detector_type": "jungfrau", "n_udp_interfaces": interfaces}
    values |= {"image_pixel_height": rows, "image_pixel_width": 1024, "bit_depth": 16}
    return half_module(16).merge(values | {"module_positions": {"0": [0, 0, 1023, rows - 1]}})


def gigafrost_datagram(
    config: DaqConfig, frame: int, first_row: int, payload: bytes, *, flags: int = 0
) -> bytes:
    blocks = config.image_pixel_width // 2 // 12
    header = struct.pack("<BBBBIIHHQII", 0xCB, blocks, 0, 0, 0, frame, flags, first_row, 0, 0, 0)
    return header + payload


def complete(config: DaqConfig, image: np.ndarray, frame: int, *, flags: int = 0) -> list[list[bytes]]:
    """Return the datagrams of an image for each port, with image status flags."""
    form, layout = format_of(config), layout_of(config)
    packed = form.pack(image, layout, frame)
    for datagrams in packed:
        datagrams[:, :32].view(gigafrost.HEADER)["image_status"] = flags
    return [
        [one[:n].tobytes() for one, n in zip(datagrams, form.lengths(datagrams, here), strict=True)]
        for datagrams, here in zip(packed, layout.ports, strict=True)
    ]


# ------------------------------------------------------------ packed pixels


def test_two_gigafrost_pixels_share_three_bytes() -> None:
    config = camera(width=72, height=4)
    assembler = Assembler(config, 2)
    assembler.receive_at(0, [gigafrost_datagram(config, 1, 0, VECTOR * 9)])  # a row of 36 pixels
    assembler.publish_ready(10**15)
    assert assembler.image(0)[2, :36].tolist() == VECTOR_PIXELS * 9
    assert pack_pixels(np.array(VECTOR_PIXELS, np.uint16), 12).tobytes() == VECTOR


def test_two_4_bit_pixels_share_a_byte_the_first_in_the_low_nibble() -> None:
    assembler = Assembler(half_module(4), 2)
    payload = bytes([0x21, 0x43]) + bytes(4094)
    header = struct.pack("<QIIQQHHHHIHBB", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2)
    assembler.receive(0, [header + payload])
    assembler.publish_ready(10**15)
    assert assembler.image(0)[0, :5].tolist() == [1, 2, 3, 4, 0]


def test_the_12_bit_ramp_of_the_virtual_eiger_comes_out_as_a_ramp() -> None:
    """Its pixels count up, modulo 4096; pairs lie across the ends of its packets."""
    ramp = np.arange(256 * 512) % 4096
    wire = bytearray()
    for first, second in ramp.reshape(-1, 2).tolist():
        wire += bytes([first & 255, first >> 8 | (second & 15) << 4, second >> 4])
    assembler = Assembler(half_module(12), 2)
    for number in range(48):
        header = struct.pack("<QIIQQHHHHIHBB", 1, 0, number, 0, 0, 31, 0, 0, 0, 0, 0, 1, 2)
        assembler.receive(0, [header + wire[number * 4096 : (number + 1) * 4096]])
    assembler.publish_ready()
    image = np.delete(assembler.image(0), [256, 257], axis=1)
    np.testing.assert_array_equal(image.reshape(-1), ramp)
    assert not assembler.image(0)[:, 256:258].any()


@pytest.mark.parametrize(("lost", "first_dark", "n_dark"), [(0, 0, 2732), (1, 2730, 2732), (2, 5460, 2732)])
def test_a_12_bit_pair_across_two_packets_is_missing_when_either_is(
    lost: int, first_dark: int, n_dark: int
) -> None:
    """4096 bytes hold 1365 pairs and a third: packets 0, 1, 2 end 1, 2 and 0 bytes into the next pair."""
    config = half_module(12)
    assembler = Assembler(config, 2)
    layout, form = assembler.layout, assembler.form
    image = np.full(layout.image_shape, 4095, np.uint16)
    (packets,) = form.pack(image, layout, 1)
    assembler.receive(0, [one.tobytes() for i, one in enumerate(packets) if i != lost])
    assembler.publish_ready(10**15)
    pixels = np.delete(assembler.image(0), [256, 257], axis=1).reshape(-1)
    assert np.flatnonzero(pixels == 0).tolist() == list(range(first_dark, first_dark + n_dark))
    assert assembler.slot(0).n_missing == 1


# ------------------------------------------------------------ packet numbers


@pytest.mark.parametrize(("bit_depth", "n_packets"), [(4, 16), (8, 32), (12, 48), (16, 64), (32, 128)])
def test_an_eiger_half_module_has_so_many_packets(bit_depth: int, n_packets: int) -> None:
    layout = layout_of(half_module(bit_depth))
    assert layout.n_units == n_packets
    assert layout.dtype == {4: "u1", 8: "u1", 12: "u2", 16: "u2", 32: "u4"}[bit_depth]


@pytest.mark.parametrize(
    ("rows", "interfaces", "numbers"),
    [
        (512, 1, [range(128)]),
        (256, 1, [range(32, 96)]),
        (512, 2, [range(64), range(64)]),
        (128, 2, [range(48, 64), range(16)]),
    ],
)
def test_a_jungfrau_of_fewer_rows_sends_those_around_the_centre(
    rows: int, interfaces: int, numbers: list[range]
) -> None:
    config = jungfrau(rows, interfaces)
    form, layout = format_of(config), layout_of(config)
    packed = form.pack(np.zeros(layout.image_shape, np.uint16), layout, 1)
    sent = [one[:, :48].copy().view(form.header)["packet_number"][:, 0].tolist() for one in packed]
    assert sent == [list(of_port) for of_port in numbers]


# ------------------------------------------------------------ GigaFRoST


@pytest.mark.parametrize(
    ("width", "height", "rows", "n_bytes", "n_packets"),
    [(2016, 2016, 4, 6048, 126), (528, 280, 18, 7128, 4), (480, 128, 20, 7200, 2), (1008, 1008, 8, 6048, 32)],
)
def test_a_gigafrost_cuts_its_frames_as_the_contract_says(
    width: int, height: int, rows: int, n_bytes: int, n_packets: int
) -> None:
    config = camera(width, height)
    form, layout = format_of(config), layout_of(config)
    assert layout.ports["units_per_packet"].tolist() == [rows] * 8
    first, *_ = form.pack(np.zeros(layout.image_shape, np.uint16), layout, 1)
    lengths = form.lengths(first, layout.ports[0])
    assert len(first) == n_packets
    assert lengths[0] == 32 + n_bytes


def test_the_packetisation_is_the_contracts_for_every_size() -> None:
    for width in range(72, 2017, 24):
        for height in (4, 128, 504, 2016):
            rows = gigafrost.rows_per_packet(width // 2, height // 4)
            assert rows == camera_rows(width, height), (width, height)
    differing = [w for w in range(48, 2017, 24) if camera_rows(w, 2016) != simulator_rows(w, 2016)]
    assert len(differing) == 50
    assert (camera_rows(1008, 1008), simulator_rows(1008, 1008)) == (8, 9)
    assert (camera_rows(504, 252), simulator_rows(504, 252)) == (17, 19)


def test_the_first_link_begins_south_of_the_middle_and_the_north_west_just_above_it() -> None:
    """Rows of the links 0..7 in an image of 4 columns a block and 8 rows; south is the higher row."""
    config = camera(72, 8)
    assembler = Assembler(config, 2)
    for port in range(8):
        row = pack_pixels(np.full(36, port + 1, np.uint16), 12).tobytes()
        assembler.receive_at(port, [gigafrost_datagram(config, 1, 0, row)])
        assembler.receive_at(port, [gigafrost_datagram(config, 1, 1, row)])
    assembler.publish_ready()
    image = assembler.image(0)
    assert image[:, 0].tolist() == [6, 5, 6, 5, 1, 2, 1, 2]
    assert image[:, 71].tolist() == [8, 7, 8, 7, 3, 4, 3, 4]
    assert (image[:, :36] == image[:, :1]).all()
    assert (image[:, 36:] == image[:, 71:]).all()


def test_a_late_padded_packet_does_not_overwrite_its_neighbour() -> None:
    config = camera(72, 8)
    assembler = Assembler(config, 2)
    rows = [pack_pixels(np.full(36, value, np.uint16), 12).tobytes() for value in (100, 200)]
    for port in range(8):
        for row in (1, 0):  # the first row comes last, with 36 bytes of padding behind it
            assembler.receive_at(port, [gigafrost_datagram(config, 1, row, rows[row] + b"\xff" * 36)])
    assembler.publish_ready()
    assert assembler.slot(0).state == COMPLETE
    assert sorted(np.unique(assembler.image(0)).tolist()) == [100, 200]
    assert assembler.image(0)[4].tolist() == [100] * 72
    assert assembler.image(0)[6].tolist() == [200] * 72


def test_rows_beyond_the_link_are_not_placed() -> None:
    """A last packet may be padded to the size of the others."""
    config = camera(72, 12)  # three rows a link
    assembler = Assembler(config, 2)
    row = pack_pixels(np.full(36, 7, np.uint16), 12).tobytes()
    for port in range(8):
        assembler.receive_at(port, [gigafrost_datagram(config, 1, first, 2 * row) for first in (2, 0)])
    assembler.publish_ready()
    assert assembler.slot(0).state == COMPLETE
    assert (assembler.image(0) == 7).all()


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(lambda c: b"", id="empty"),
        pytest.param(lambda c: gigafrost_datagram(c, 1, 0, b"")[:31], id="half a header"),
        pytest.param(lambda c: gigafrost_datagram(c, 1, 0, bytes(53)), id="less than a row"),
        pytest.param(lambda c: gigafrost_datagram(c, 1, 2, bytes(54)), id="a row that is none"),
        pytest.param(lambda c: gigafrost_datagram(c, 1, 0xFFFF, bytes(54)), id="the largest row"),
        pytest.param(lambda c: gigafrost_datagram(camera(96), 1, 0, bytes(72)), id="another width"),
        pytest.param(lambda c: b"\xcc" + gigafrost_datagram(c, 1, 0, bytes(54))[1:], id="protocol id"),
        pytest.param(lambda c: gigafrost_datagram(c, 1, 0, bytes(7401)), id="too long"),
    ],
)
def test_what_is_no_packet_of_this_gigafrost_is_counted_and_not_placed(datagram: Any) -> None:
    config = camera(72, 8)
    assembler = Assembler(config, 2)
    assembler.receive_at(0, [datagram(config)])
    assert assembler.words[Word.MALFORMED] == 1
    assert assembler.words[Word.OPENED] == 0


def test_an_image_with_the_flag_do_not_store_is_left_out_of_the_run_and_is_no_loss() -> None:
    config = camera(72, 8)
    assembler = Assembler(config, 8)
    assembler.arm(2)
    for frame, flags in ((1, 0), (2, 0x8000), (3, 0x7FFF)):
        image = np.full((8, 72), frame, np.uint16)
        for port, datagrams in enumerate(complete(config, image, frame, flags=flags)):
            assembler.receive_at(port, datagrams)
        assembler.publish_ready()
    assert [int(assembler.slot(s).frame) for s in assembler.run_images()] == [1, 3]
    assert assembler.slot(1).state == SKIPPED
    assert assembler.words[Word.RUN_DROPPED] == assembler.words[Word.DROPPED_IMAGES] == 0
    assert assembler.words[Word.RUN_KEPT] == 2


def test_on_16_ports_even_and_odd_images_alternate_and_both_become_images() -> None:
    config = camera(72, 8, n_udp_ports=16)
    layout = layout_of(config)
    assert layout.udp_ports == list(range(50000, 50016))
    assembler = Assembler(config, 8)
    for frame in (4, 5):
        packets = complete(config, np.full((8, 72), frame, np.uint16), frame)
        assert [bool(of_port) for of_port in packets] == [frame == 4] * 8 + [frame == 5] * 8
        for port, datagrams in enumerate(packets):
            assembler.receive_at(port, datagrams)
    assembler.publish_ready()
    assert [(int(assembler.image(s)[0, 0]), assembler.slot(s).state) for s in (0, 1)] == [
        (4, COMPLETE),
        (5, COMPLETE),
    ]


@pytest.mark.parametrize("ports", [8, 16])
@pytest.mark.parametrize("first_row", [0, 9])
def test_packets_of_silent_links_are_counted_as_the_others_cut_theirs(first_row: int, ports: int) -> None:
    """1008 × 1008: 32 packets of 8 rows a link from the camera, 28 of 9 from std_daq's simulators."""
    config = camera(1008, 1008, n_udp_ports=ports)
    assembler = Assembler(config, 2)
    frames = frames_of(config, 1, rows=9)
    assert len(frames[0].packets) == 28
    row = bytes(504 * 3 // 2)
    assembler.receive_at(frames[3].port, [gigafrost_datagram(config, 1, first_row, 9 * row + bytes(36))])
    assembler.publish_ready(10**15)
    assert assembler.slot(0).n_missing == 8 * 28 - 1


@pytest.mark.parametrize(("width", "height"), [(48, 8), (2040, 8), (80, 8), (72, 6), (72, 2020)])
def test_a_size_that_no_gigafrost_has_is_refused_with_the_numbers(width: int, height: int) -> None:
    with pytest.raises(InvalidConfig, match=f"no image of {width} x {height} pixels"):
        camera(width, height)


# ------------------------------------------------------------ Moench


def test_a_moench_has_50_packets_of_8_rows() -> None:
    values = {"detector_type": "moench", "image_pixel_height": 400, "image_pixel_width": 400}
    config = half_module(16).merge(values | {"module_positions": {"0": [0, 0, 399, 399]}})
    layout, form = layout_of(config), format_of(config)
    (packets,) = form.pack(np.zeros((400, 400), np.uint16), layout, 1)
    assert packets.shape == (50, 6448)
    assert (packets[:, 46] == 5).all()
