"""What is packed and placed is the same image again, for every detector, in every order, with losses exact.

``assemble(place(pack(image))) == image``, and both halves also against the slow
oracle, which was written from the contract alone. Also runs with NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.detectors import FORMATS, DetectorFormat, format_of, layout_of
from daq_core.kernels.compiling import JIT
from daq_core.ring.ring import COMPLETE, INCOMPLETE
from daq_core.ring.words import Word
from tests.assembly.assembler import Assembler
from tests.oracle.frames import (
    Frame,
    bits_of,
    camera_rows,
    datagrams,
    frames_of,
    image_of,
    simulator_rows,
)
from tests.property.geometries import configs, gigafrost, gigafrosts

pytestmark = pytest.mark.kernels

few = settings(
    max_examples=10 if JIT else 2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MOST = 4 if JIT else 1  # modules; uncompiled, each pixel costs microseconds
ROWS = (8, 16, 128, 256, 512) if JIT else (8, 16)
LATER = 10**15

DETECTORS: dict[str, st.SearchStrategy[DaqConfig]] = {
    f"{form.name}-{bits}": configs(f"{form.name}-{bits}", most=MOST)
    for form in FORMATS.values()
    if isinstance(form, DetectorFormat) and form.module
    for bits in form.bit_depths
} | {
    "jungfrau-16": configs("jungfrau-16", rows=ROWS),
    "jungfrau, two interfaces": configs("jungfrau-16", rows=ROWS, interfaces=2),
    "gigafrost": gigafrosts(largest=600 if JIT else 120),
}
any_detector = pytest.mark.parametrize("kind", DETECTORS)

Sent = list[tuple[int, Frame, list[bytes]]]
"""Of each port that sends: its place in the layout, its frame, and its datagrams."""


def test_every_packet_format_is_in_the_round_trip() -> None:
    tried = {kind.split("-")[0].split(",")[0] for kind in DETECTORS}
    assert tried == {form.name for form in FORMATS.values() if isinstance(form, DetectorFormat)}


class Trip:
    """One detector: random images, what the oracle makes of them, and the assembly they arrive at."""

    def __init__(self, config: DaqConfig, seed: int, *, rows: int | None = None, n_slots: int = 4) -> None:
        self.config, self.rows, self.bits = config, rows, bits_of(config)
        self.assembler = Assembler(config, n_slots)
        self.layout, self.form = layout_of(config), format_of(config)
        self.pixels = np.random.default_rng(seed)
        self.shuffle = random.Random(seed)
        self._frames: dict[int, list[Frame]] = {}

    def random_image(self, image_id: int) -> npt.NDArray[Any]:
        """Return an image whose gap pixels are 0 and whose others are anything."""
        image = np.zeros(self.layout.image_shape, self.layout.ring_dtype)
        for frame in self.frames(image_id):
            values = self.pixels.integers(0, 2**self.bits, len(frame.y), np.uint64)
            image[frame.y, frame.x] = values
        return image

    def frames(self, image_id: int) -> list[Frame]:
        turn = image_id % self.layout.turns
        if turn not in self._frames:
            self._frames[turn] = frames_of(self.config, image_id, rows=self.rows)
        return self._frames[turn]

    def sent(self, image: npt.NDArray[Any], image_id: int) -> Sent:
        """Return what the oracle sends of an image."""
        ports = {int(port) - self.config.start_udp_port: i for i, port in enumerate(self.layout.udp_ports)}
        return [
            (ports[frame.port], frame, datagrams(frame, image, self.bits, image_id))
            for frame in self.frames(image_id)
        ]

    def receive(self, packets: list[tuple[int, bytes]], now: int = 0) -> None:
        """Let (port, datagram) arrive one after the other; neighbours of one port as a batch."""
        start = 0
        for end in range(1, len(packets) + 1):
            if end == len(packets) or packets[end][0] != packets[start][0]:
                self.assembler.receive_at(packets[start][0], [sent for _, sent in packets[start:end]], now)
                start = end
        self.assembler.publish_ready(now)

    def fill_memory(self) -> None:
        """Leave old pixels in every slot, wherever a module has some, and behind the image."""
        for slot in range(len(self.assembler.ring.slots)):
            for frame in self.frames(0):
                self.assembler.memory(slot)[frame.y, frame.x] = 0xA5
            begin = self.layout.room_bytes - self.layout.edge_bytes
            self.assembler.ring.pixels[slot, begin : self.layout.room_bytes] = 0xA5

    def expected(self, arrived: list[tuple[Frame, list[bytes | None]]]) -> npt.NDArray[Any]:
        return image_of(arrived, self.layout.image_shape, self.layout.ring_dtype, self.bits)


def flat(sent: Sent) -> list[tuple[int, bytes]]:
    return [(port, one) for port, _, packets in sent for one in packets]


def drawn_rows(data: st.DataObject, config: DaqConfig) -> int | None:
    """Draw how many rows a GigaFRoST's sender puts into a packet; None for the others."""
    if config.detector_type != "gigafrost":
        return None
    row_bytes = config.image_pixel_width // 2 * 3 // 2
    return data.draw(st.none() | st.integers(1, (7400 - 36) // row_bytes))


@any_detector
@given(data=st.data())
@few
def test_what_is_packed_is_what_the_contract_says(kind: str, data: st.DataObject) -> None:
    config, image_id = data.draw(DETECTORS[kind]), data.draw(st.integers(0, 2**40))
    rows = drawn_rows(data, config)
    trip = Trip(config, data.draw(st.integers(0, 2**32)), rows=rows)
    image = trip.random_image(image_id)
    layout = trip.form.packetised(trip.layout, rows) if rows and trip.form.packetised else trip.layout
    packed = trip.form.pack(image, layout, image_id)
    expected: dict[int, tuple[Frame, list[bytes]]] = {p: (f, d) for p, f, d in trip.sent(image, image_id)}
    for port, here in enumerate(layout.ports):
        n_bytes = trip.form.lengths(packed[port], here)
        mine = [one[:n].tobytes() for one, n in zip(packed[port], n_bytes, strict=True)]
        frame, theirs = expected.get(port, (None, []))
        assert [len(one) for one in mine] == [len(one) for one in theirs]
        for one, other, packet in zip(mine, theirs, frame.packets if frame else (), strict=True):
            n_header, n_payload = len(frame.header(packet, 0)) if frame else 0, packet.end - packet.first
            assert one[n_header:][:n_payload] == other[n_header:][:n_payload]
            fields = ("frame_number", "packet_number", "detector_type", "header_version")
            fields += ("protocol_id", "row_blocks", "rows_low", "status", "first_row", "image_status")
            a, b = (np.frombuffer(x, trip.form.header, 1)[0] for x in (one, other))
            names = set(fields) & set(trip.form.header.names or ())
            assert {name: a[name] for name in names} == {name: b[name] for name in names}


@any_detector
@given(data=st.data())
@few
def test_an_image_that_is_packed_and_placed_is_itself_again(kind: str, data: st.DataObject) -> None:
    """In any order, some packets twice."""
    config, image_id = data.draw(DETECTORS[kind]), data.draw(st.integers(0, 2**32 - 1))
    trip = Trip(config, data.draw(st.integers(0, 2**32)))
    image = trip.random_image(image_id)
    trip.fill_memory()
    packed = trip.form.pack(image, trip.layout, image_id)
    packets = [
        (port, one[:n].tobytes())
        for port, here in enumerate(trip.layout.ports)
        for one, n in zip(packed[port], trip.form.lengths(packed[port], here), strict=True)
    ]
    twice = [packet for packet in packets if trip.shuffle.random() < 0.2]
    some = packets[1:] + twice
    trip.shuffle.shuffle(some)
    trip.receive(some)
    trip.receive(packets[:1])
    assert trip.assembler.slot(0).state == COMPLETE
    assert trip.assembler.slot(0).n_missing == 0
    np.testing.assert_array_equal(trip.assembler.image(0), image)
    words = trip.assembler.words
    assert words[Word.PLACED] == len(packets)
    assert words[Word.DUPLICATE] + words[Word.LATE] == len(twice)
    assert words[Word.MALFORMED] == 0


@pytest.mark.skipif(not JIT, reason="four million pixels")
@pytest.mark.parametrize("n_udp_ports", [8, 16])
@pytest.mark.parametrize(
    ("width", "height"), [(2016, 2016), (528, 280), (480, 128), (1008, 1008), (504, 252)]
)
def test_the_published_gigafrost_sizes_come_out_whole_from_the_camera_and_from_simulators(
    width: int, height: int, n_udp_ports: int
) -> None:
    values = {"image_pixel_width": width, "image_pixel_height": height, "n_udp_ports": n_udp_ports}
    config = gigafrost(**values)
    for rows in (camera_rows(width, height), simulator_rows(width, height)):
        trip = Trip(config, 1, rows=rows)
        image = trip.random_image(3)
        packets = flat(trip.sent(image, 3))
        trip.shuffle.shuffle(packets)
        trip.receive(packets)
        assert trip.assembler.slot(0).state == COMPLETE
        np.testing.assert_array_equal(trip.assembler.image(0), image)


@any_detector
@given(data=st.data())
@few
def test_of_two_images_at_once_what_is_lost_is_zero_and_counted_exactly(
    kind: str, data: st.DataObject
) -> None:
    """Old pixels are in their memory; each loses another share of its packets, the first packet never.

    Whole images come before them: a receiver may have begun within the first that a port sees.
    """
    config, first_id = data.draw(DETECTORS[kind]), data.draw(st.integers(2, 2**31))
    trip = Trip(config, data.draw(st.integers(0, 2**32)), rows=drawn_rows(data, config))
    n_before = trip.layout.turns
    for image_id in range(first_id - n_before, first_id):
        trip.receive(flat(trip.sent(trip.random_image(image_id), image_id)))
    trip.fill_memory()
    expected, packets = [], []
    for image_id in (first_id, first_id + 1):
        share = data.draw(st.sampled_from([0.03, 0.5, 0.9]))
        kept: list[tuple[Frame, list[bytes | None]]] = []
        n_lost = 0
        for nth, (port, frame, sent) in enumerate(trip.sent(trip.random_image(image_id), image_id)):
            gone = {i for i in range(len(sent)) if (nth, i) != (0, 0) and trip.shuffle.random() < share}
            n_lost += len(gone)
            kept.append((frame, [None if i in gone else one for i, one in enumerate(sent)]))
            packets += [(port, one) for i, one in enumerate(sent) if i not in gone]
        expected.append((image_id, n_lost, trip.expected(kept)))
    trip.shuffle.shuffle(packets)
    # A copy follows at once: many of them in order, after all others, are a detector that was armed again.
    packets = [one for packet in packets for one in [packet] * (1 + (trip.shuffle.random() < 0.1))]
    trip.receive(packets)
    trip.assembler.publish_ready(LATER)
    assert trip.assembler.n_published == n_before + 2
    found = {int(trip.assembler.slot(i).frame): i for i in range(n_before, n_before + 2)}
    for image_id, n_lost, image in expected:
        slot = trip.assembler.slot(found[image_id])
        np.testing.assert_array_equal(trip.assembler.image(found[image_id]), image)
        assert (slot.state, slot.n_missing) == (INCOMPLETE if n_lost else COMPLETE, n_lost)


@any_detector
@given(data=st.data())
@few
def test_a_single_packet_leaves_the_rest_zero_and_another_leaves_only_itself_out(
    kind: str, data: st.DataObject
) -> None:
    """All packets but one, and one without all others: each edge of a packet is met from both sides."""
    trip = Trip(data.draw(DETECTORS[kind]), data.draw(st.integers(0, 2**32)))
    for turn, image_id in enumerate((0, 2)):
        trip.fill_memory()
        sent = trip.sent(trip.random_image(image_id), image_id)
        port, _, packets = data.draw(st.sampled_from(sent))
        chosen = data.draw(st.integers(0, len(packets) - 1))
        alone, n_all = turn == 0, sum(len(those) for _, _, those in sent)
        if not alone and n_all == 1:
            return  # without its one packet there is no image
        kept: list[tuple[Frame, list[bytes | None]]] = []
        for other_port, other, those in sent:
            mine = [alone == (other_port == port and i == chosen) for i in range(len(those))]
            kept.append((other, [one if keep else None for one, keep in zip(those, mine, strict=True)]))
            trip.receive([(other_port, one) for one in kept[-1][1] if one is not None], turn * LATER)
        trip.assembler.publish_ready(LATER * (turn + 1))
        np.testing.assert_array_equal(trip.assembler.image(turn), trip.expected(kept))
        assert trip.assembler.slot(turn).n_missing == (n_all - 1 if alone else 1)


def test_memory_behind_an_image_is_never_touched() -> None:
    """The next image's memory begins there; the last packets of the last module are the nearest to it."""
    for kind in ("eiger-12", "gigafrost"):
        positions = {"0": [0, 255, 513, 0]}
        values = {
            "detector_name": "x",
            "detector_type": kind.split("-")[0],
            "bit_depth": 12 if kind == "eiger-12" else 16,
            "image_pixel_height": 256 if kind == "eiger-12" else 20,
            "image_pixel_width": 514 if kind == "eiger-12" else 72,
            "n_modules": 1 if kind == "eiger-12" else 8,
            "start_udp_port": 50000,
            "writer_user_id": 0,
            "module_positions": positions if kind == "eiger-12" else {},
        }
        trip = Trip(DaqConfig.parse(values), 3)
        untouched = trip.assembler.ring.pixels[:, trip.layout.room_bytes :]
        before = untouched.copy()
        for image_id in range(4):
            packets = flat(trip.sent(trip.random_image(image_id), image_id))
            trip.shuffle.shuffle(packets)
            trip.receive(packets[: len(packets) // (1 + image_id % 2)], image_id * LATER)
            trip.assembler.publish_ready((image_id + 1) * LATER)
        assert trip.assembler.n_published == 4
        np.testing.assert_array_equal(untouched, before)
