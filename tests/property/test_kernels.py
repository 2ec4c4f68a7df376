"""The placement kernels put every pixel of every packet where the contract says, and nothing elsewhere.

Also runs with NUMBA_DISABLE_JIT=1, where an index out of bounds cannot hide.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.kernels.compiling import JIT
from daq_core.ring.ring import COMPLETE, INCOMPLETE, Ring
from daq_core.ring.words import Word
from tests.assembly.assembler import Assembler, assert_agreement
from tests.oracle.packets import HEADER, PAYLOAD_BYTES, datagram, packet_numbers, pixel_places
from tests.property.geometries import configs

pytestmark = pytest.mark.kernels

few = settings(
    max_examples=12 if JIT else 2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

DETECTORS = {
    "eiger-8": {},
    "eiger-16": {},
    "eiger-32": {},
    "jungfrau-16": {"rows": (512,) if JIT else (64,)},
    "jungfrau-16 partial": {"rows": (8, 16, 128, 256)},
}
any_detector = pytest.mark.parametrize("kind", DETECTORS)


def draw_config(data: st.DataObject, kind: str) -> DaqConfig:
    return data.draw(configs(kind.split()[0], **DETECTORS[kind]))


def packets_of(config: DaqConfig, frame: int, shuffle: random.Random) -> list[tuple[int, bytes]]:
    """Return (module, datagram) of a whole image with random pixels, in a random order."""
    packets = []
    for module, corners in config.module_positions.items():
        for number in packet_numbers(config.detector_type, config.bit_depth, corners):
            payload = shuffle.randbytes(PAYLOAD_BYTES[config.detector_type])
            packets.append((module, datagram(frame, number, payload, detector=config.detector_type)))
    shuffle.shuffle(packets)
    return packets


def one_of_each_module(packets: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return the first packet of each module, so that none is silent for longer than the window."""
    return list({module: (module, sent) for module, sent in reversed(packets)}.values())


def receive(assembler: Assembler, reference: Any, packets: list[tuple[int, bytes]], now: int = 0) -> None:
    """Give the same packets to both; neighbours of one module make a batch."""
    start = 0
    for end in range(1, len(packets) + 1):
        if end == len(packets) or packets[end][0] != packets[start][0]:
            assembler.receive(packets[start][0], [sent for _, sent in packets[start:end]], now)
            start = end
    for module, sent in packets:
        reference.receive(module, sent, now)


@any_detector
@given(data=st.data())
@few
def test_packets_in_any_order_become_exactly_their_image(kind: str, data: st.DataObject) -> None:
    config = draw_config(data, kind)
    assembler = Assembler(config, 8)
    reference = assembler.reference()
    shuffle = random.Random(data.draw(st.integers(0, 2**32)))
    receive(assembler, reference, packets_of(config, 17, shuffle))
    assembler.publish_ready()
    reference.publish_ready(0)
    assert_agreement(assembler, reference)
    assert assembler.slot(0).state == COMPLETE
    assert assembler.slot(0).n_missing == 0


@any_detector
@given(data=st.data())
@few
def test_pixels_of_lost_packets_are_zero_also_where_an_old_image_was(kind: str, data: st.DataObject) -> None:
    """Both images live in the same slot; of the second a random part of the packets arrives, some twice."""
    config = draw_config(data, kind)
    assembler = Assembler(config, 8)
    reference = assembler.reference()
    shuffle = random.Random(data.draw(st.integers(0, 2**32)))
    share = data.draw(st.sampled_from([0.0, 0.5, 0.97]))
    for frame in range(8):  # every slot is used once
        whole = packets_of(config, frame, shuffle)
        receive(assembler, reference, whole if frame == 0 else one_of_each_module(whole))
        assembler.publish_ready(now := (frame + 1) * 10**9)
        reference.publish_ready(now)
    packets = packets_of(config, 8, shuffle)
    arriving = one_of_each_module(packets)
    arriving += [packet for packet in packets if packet not in arriving and shuffle.random() < share]
    receive(assembler, reference, arriving + arriving[: len(arriving) // 3], 10**10)
    assembler.publish_ready(2 * 10**10)
    reference.publish_ready(2 * 10**10)
    assert_agreement(assembler, reference)
    assert assembler.n_published == 9
    if len(arriving) < len(packets):
        assert assembler.slot(8).state == INCOMPLETE
        assert assembler.slot(8).n_missing == len(packets) - len(arriving)


@any_detector
@given(data=st.data())
@few
def test_an_image_that_is_packed_and_placed_is_itself_again(kind: str, data: st.DataObject) -> None:
    config = draw_config(data, kind)
    assembler = Assembler(config, 8)
    layout, form = assembler.layout, assembler.form
    image = np.zeros(layout.image_shape, layout.dtype)
    pixels = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for corners in config.module_positions.values():
        for number in packet_numbers(config.detector_type, config.bit_depth, corners):
            y, x = pixel_places(config.detector_type, config.bit_depth, corners, number)
            image[y, x] = pixels.integers(0, np.iinfo(layout.dtype).max, len(y), layout.dtype, endpoint=True)
    for module, packets in zip(layout.modules, form.pack(image, layout, 5), strict=True):
        numbers = [HEADER.unpack_from(packet.tobytes())[2] for packet in packets]
        corners = config.module_positions[module]
        assert numbers == list(packet_numbers(config.detector_type, config.bit_depth, corners))
        assembler.receive(module, [packet.tobytes() for packet in packets])
    assembler.publish_ready()
    assert assembler.slot(0).state == COMPLETE
    np.testing.assert_array_equal(assembler.image(0), image)


def guarded(assembler: Assembler, guard: int = 8192) -> tuple[Ring, list[Any]]:
    """Return the ring with its pixels and marks inside larger memory, and the memory around them."""
    views, around = {}, []
    for name in ("pixels", "marks"):
        array = getattr(assembler.ring, name)
        memory = np.full(array.nbytes + 2 * guard, 0xA5, np.uint8)
        memory[guard:-guard] = 0
        views[name] = memory[guard:-guard].view(array.dtype).reshape(array.shape)
        around += [memory[:guard], memory[-guard:]]
    return assembler.ring._replace(**views), around


@st.composite
def malformed(draw: st.DrawFn, config: DaqConfig, module: int) -> bytes:
    """Draw a datagram of a wrong length, or of a packet number that the module does not have."""
    n_bytes = PAYLOAD_BYTES[config.detector_type]
    numbers = packet_numbers(config.detector_type, config.bit_depth, config.module_positions[module])
    frame = draw(st.integers(0, 2**64 - 1))
    if draw(st.booleans()):
        n = draw(st.integers(0, 48 + n_bytes + 100).filter(lambda n: n != 48 + n_bytes))
        return (datagram(frame, numbers[0], bytes(n_bytes), detector=config.detector_type) + bytes(100))[:n]
    edges = [numbers[0] - 1, numbers[-1] + 1, numbers[-1] + 2, 2**31, 2**32 - 1]
    number = draw(st.sampled_from([n for n in edges if n >= 0]) | st.integers(numbers[-1] + 1, 2**32 - 1))
    return datagram(frame, number, b"\xff" * n_bytes, detector=config.detector_type)


@any_detector
@given(data=st.data())
@few
def test_malformed_packets_are_counted_and_never_touch_memory(kind: str, data: st.DataObject) -> None:
    config = draw_config(data, kind)
    assembler = Assembler(config, 8)
    assembler.ring, around = guarded(assembler)
    module = data.draw(st.sampled_from(sorted(config.module_positions)))
    sent = data.draw(st.lists(malformed(config, module), min_size=1, max_size=20))
    assembler.receive(module, sent)
    assembler.publish_ready(10**12)
    assert assembler.words[Word.RECEIVED] == assembler.words[Word.MALFORMED] == len(sent)
    assert assembler.words[Word.OPENED] == 0
    assert not assembler.ring.pixels.any()
    assert not assembler.ring.marks.any()
    assert all((memory == 0xA5).all() for memory in around)


@any_detector
@given(data=st.data())
@few
def test_the_first_and_last_image_of_the_memory_stay_within_it(kind: str, data: st.DataObject) -> None:
    """Whole images in all slots, then one packet for each slot, so that the rest of it is erased."""
    config = draw_config(data, kind)
    assembler = Assembler(config, 2)
    assembler.ring, around = guarded(assembler)
    shuffle = random.Random(1)
    for frame in range(4):
        packets = packets_of(config, frame, shuffle)
        for module, sent in packets if frame < 2 else packets[:1]:
            assembler.receive(module, [sent])
        assembler.publish_ready((frame + 1) * 10**12)
    assert assembler.n_published == 4
    assert all((memory == 0xA5).all() for memory in around)
