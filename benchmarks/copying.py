"""The kernels that fill images, against memcpy of the image they fill."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from benchmarks import detectors
from benchmarks.figure import Effort, Figure, LostError
from daq_core.assembling.placing import gigafrost, sls
from daq_core.assembling.placing.twelve_bit import put_12_bit
from daq_core.assembling.signatures import LAYOUT_TYPE, RING_TYPE
from daq_core.config import DaqConfig
from daq_core.detectors import gigafrost as gigafrost_wire
from daq_core.detectors import layout_of
from daq_core.detectors import sls as sls_wire
from daq_core.kernels.compiling import copy_bytes, finish_stores, kernel_of
from daq_core.kernels.loading import load_kernels
from daq_core.linux.sockets import DatagramBatch
from daq_core.ring.prefault import populate
from daq_core.ring.ring import Ring
from daq_core.simulating.simulator import Simulator
from daq_core.writing.conversion import convert

TARGET_BYTES = 256 * 2**20
"""Images are filled in turn in more memory than the caches hold, in a ring as the receiver's."""
HANDED_OVER = 32
"""Images that a writer takes at once when it is busy: ``daq_core.writing.writer``."""
SHARE = 1 / 20
"""Of a measurement's seconds: no packets to wait for here."""

Fill = Callable[[], Any]


@kernel_of(types.void(types.uint8[:, ::1], types.int64, LAYOUT_TYPE, RING_TYPE))
def place_all(packets: Any, stride: int, layout: Any, ring: Any) -> None:
    """Put the datagrams of one image into every slot; packets (ports, n * stride) uint8 as received."""
    for slot in range(ring.pixels.shape[0]):
        ring.marks[slot, :] = 0
        for port in range(layout.shape[0]):
            for packet in range(layout[port].n_units):
                at = packet * stride + sls_wire.HEADER_BYTES
                if layout[port].packing != 12:
                    sls.put_packet(packets[port], at, layout, port, packet, ring.pixels[slot])
                else:
                    unit = layout[port].first_unit + packet
                    ring.marks[slot, unit >> 6] |= np.uint64(1) << np.uint64(unit & 63)
                    put_12_bit(packets[port], at, layout, port, packet, ring, slot)
        finish_stores()


@kernel_of(types.void(types.uint8[:, ::1], types.int64, LAYOUT_TYPE, RING_TYPE))
def unpack_all(packets: Any, stride: int, layout: Any, ring: Any) -> None:
    """Unpack the datagrams of one GigaFRoST image into every slot; parameters as for place_all."""
    for slot in range(ring.pixels.shape[0]):
        for port in range(layout.shape[0]):
            here = layout[port]
            n_packets = -(-here.n_units // here.units_per_packet)
            for packet in range(n_packets):
                at = packet * stride + gigafrost_wire.HEADER_BYTES
                row = packet * here.units_per_packet
                n_rows = min(here.units_per_packet, here.n_units - row)
                gigafrost.put_rows(packets[port], at, layout, port, row, n_rows, ring.pixels[slot])
        finish_stores()


@kernel_of(types.void(types.uint8[::1], types.uint8[:, ::1]))
def copy_all(source: Any, targets: Any) -> None:
    """Copy as many bytes as an image has into every (target, bytes), with memcpy."""
    for target in range(targets.shape[0]):
        copy_bytes(targets[target], 0, source, 0, source.shape[0])


def placement(effort: Effort) -> list[Figure]:
    """Payloads that lie behind their headers, into images of several geometries."""
    load_kernels()
    return [
        _placing("place a Jungfrau module, contiguous", detectors.jungfrau(), "≥ 0.80", effort),
        _placing("place a Jungfrau module, rows apart", detectors.jungfrau(offset=8), "≥ 0.80", effort),
        _placing(
            "place a Jungfrau module, upside down",
            detectors.jungfrau(offset=8, flipped=True),
            "≥ 0.80",
            effort,
        ),
        _placing(
            "place an Eiger half module, chip gap, upside down",
            detectors.eiger(flip_x=False),
            "≥ 0.80",
            effort,
        ),
        _placing(
            "place an Eiger half module, chip gap, turned by 180°",
            detectors.eiger(flip_x=True),
            "≥ 0.45",
            effort,
        ),
    ]


def unpacking(effort: Effort) -> list[Figure]:
    """Packed pixels, into images of whole bytes."""
    load_kernels()
    four, twelve = (detectors.eiger(flip_x=False, bit_depth=bits) for bits in (4, 12))
    return [
        _placing("unpack an Eiger half module of 4 bit", four, "≥ 1.00", effort),
        _placing("unpack an Eiger half module of 12 bit", twelve, "", effort),
        _placing("unpack a GigaFRoST image, 2016 × 2016", detectors.gigafrost(2016, 2016), "≥ 0.60", effort),
    ]


def conversion(effort: Effort) -> list[Figure]:
    """Raw Jungfrau pixels of all gain stages, with a gain and a pedestal for each."""
    load_kernels()
    random = np.random.default_rng(1)
    n_pixels = 512 * 1024
    stages = random.choice(np.array([0, 1, 3], np.uint16), n_pixels)
    raw = stages << 14 | random.integers(0, 2**14, n_pixels, np.uint16)
    slots = np.tile(raw.view(np.uint8), (HANDED_OVER, 1))
    chosen = np.arange(HANDED_OVER)
    maps = random.uniform(0.5, 2, (2, 3, n_pixels)).astype(np.float32)
    converted = _new_memory(HANDED_OVER, 4 * n_pixels).view(np.float32)
    if convert(slots, chosen, maps, converted) != 0 or not np.all(converted):
        raise LostError("convert a Jungfrau module: pixels were left out")
    into = _new_memory(*converted.view(np.uint8).shape)

    def one_by_one() -> None:
        for i in range(HANDED_OVER):
            convert(slots, chosen[i : i + 1], maps, converted[i : i + 1])

    return [
        _against_memcpy(name, fill, into, into.shape[1], "≥ 0.40", effort)
        for name, fill in (
            (
                f"convert a Jungfrau module to float32, {HANDED_OVER} images a hand-over",
                lambda: convert(slots, chosen, maps, converted),
            ),
            ("the same, one image a hand-over", one_by_one),
        )
    ]


def _placing(name: str, config: DaqConfig, goal: str, effort: Effort) -> Figure:
    """Measure what fills a ring of a config's images from the datagrams of one."""
    layout, simulator = layout_of(config), Simulator(config)
    kernel = unpack_all if config.detector_type == "gigafrost" else place_all
    packets, stride = _as_received(simulator.packets(1))
    n_slots = max(2, TARGET_BYTES // layout.ring_shape(1).slot_bytes)
    ring, other = _new_ring(config, n_slots), _new_ring(config, n_slots)

    kernel(packets, stride, layout.ports, ring)
    expected = simulator.image(1).tobytes()
    if any(image.tobytes() != expected for image in ring.pixels[:, : layout.image_bytes]):
        raise LostError(f"{name}: other pixels than were packed")
    return _against_memcpy(
        name,
        lambda: kernel(packets, stride, layout.ports, ring),
        other.pixels,
        layout.image_bytes,
        goal,
        effort,
    )


def _as_received(packets: list[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.uint8], int]:
    """Return (ports, n * stride) uint8, the datagrams as the receiver has them, and their distance."""
    batch = DatagramBatch(len(packets) * len(packets[0]), packets[0].shape[1])
    received = batch.datagrams.reshape(len(packets), len(packets[0]), batch.stride)
    for port, datagrams in enumerate(packets):
        received[port, :, : datagrams.shape[1]] = datagrams
    return received.reshape(len(packets), -1), batch.stride


def _new_memory(n_images: int, image_bytes: int) -> npt.NDArray[np.uint8]:
    """Return (images, bytes) uint8 of whole pages, as the writer's."""
    memory = np.frombuffer(mmap.mmap(-1, n_images * image_bytes), np.uint8).reshape(n_images, -1)
    memory[:] = 0
    return memory


def _new_ring(config: DaqConfig, n_slots: int) -> Ring:
    shape = layout_of(config).ring_shape(n_slots)
    descriptor = shape.create()
    try:
        ring = shape.attach(descriptor)
        for memory in (ring.slots, ring.marks, ring.pixels):
            populate(memory)
        return ring
    finally:
        os.close(descriptor)


def _against_memcpy(
    name: str, fill: Fill, targets: npt.NDArray[np.uint8], image_bytes: int, goal: str, effort: Effort
) -> Figure:
    """Compare filling images with copying as many into (images, bytes or more) of the same kind of memory."""
    source = np.ones(image_bytes, np.uint8)
    n_bytes = len(targets) * image_bytes
    copy_all(source, targets)
    pairs = []
    for _ in range(effort.rounds * 3):
        ours = _rate(fill, n_bytes, effort.seconds * SHARE)
        pairs.append((ours, _rate(lambda: copy_all(source, targets), n_bytes, effort.seconds * SHARE)))
    return Figure.ratio(name, "memcpy of the image", pairs, goal=goal, unit="GB/s")


def _rate(fill: Fill, n_bytes: int, seconds: float) -> float:
    """Return the GB filled in a second of CPU time; one call fills n_bytes."""
    n_calls = 0
    start = time.thread_time()
    while (used := time.thread_time() - start) < seconds or n_calls == 0:
        fill()
        n_calls += 1
    return float(n_calls * n_bytes / used / 1e9)


BENCHMARKS = (placement, unpacking, conversion)
