"""The kernels that fill images, against memcpy of the image they fill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from benchmarks import detectors
from benchmarks.figure import Effort, Figure, LostError
from daq_core.assembly import LAYOUT_TYPE, RING_TYPE
from daq_core.compiled import copy_bytes, kernel_of, load_kernels
from daq_core.config import DaqConfig
from daq_core.conversion import convert
from daq_core.detectors import gigafrost, layout_of, sls
from daq_core.detectors.packed import put_4_bit, put_12_bit
from daq_core.prefault import populate
from daq_core.receiver import ring_shape
from daq_core.ring import Ring
from daq_core.simulator import Simulator
from daq_core.sockets import DatagramBatch

TARGET_BYTES = 64 * 2**20
"""Images are filled in turn in more memory than the caches hold, in a ring as the receiver's."""
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
                at = packet * stride + sls.HEADER_BYTES
                if layout[port].packing == 0:
                    sls.put(packets[port], at, layout, port, packet, ring.pixels[slot])
                elif layout[port].packing == 4:
                    put_4_bit(packets[port], at, layout, port, packet, ring.pixels[slot])
                else:
                    unit = layout[port].first_unit + packet
                    ring.marks[slot, unit >> 6] |= np.uint64(1) << np.uint64(unit & 63)
                    put_12_bit(packets[port], at, layout, port, packet, ring, slot)


@kernel_of(types.void(types.uint8[:, ::1], types.int64, LAYOUT_TYPE, RING_TYPE))
def unpack_all(packets: Any, stride: int, layout: Any, ring: Any) -> None:
    """Unpack the datagrams of one GigaFRoST image into every slot; parameters as for place_all."""
    for slot in range(ring.pixels.shape[0]):
        pixels = ring.pixels[slot].view(np.uint16)
        for port in range(layout.shape[0]):
            here = layout[port]
            for row in range(here.n_units):
                packet = row // here.units_per_packet
                at = packet * stride + gigafrost.HEADER_BYTES
                at += (row - packet * here.units_per_packet) * here.segment_pixels * 3 // 2
                target = here.first_pixel + row * here.row_step
                gigafrost.unpack(packets[port], at, pixels, target, here.segment_pixels)


@kernel_of(types.int64(types.uint16[:, ::1], types.float32[:, :, ::1], types.float32[:, ::1]))
def convert_all(raw: Any, maps: Any, converted: Any) -> int:
    """Convert (images, pixels) uint16 to float32; returns the number of invalid pixels."""
    n_invalid = 0
    for image in range(raw.shape[0]):
        n_invalid += convert(raw[image], maps, converted[image])
    return n_invalid


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
    n_images = TARGET_BYTES // (4 * n_pixels)
    stages = random.choice(np.array([0, 1, 3], np.uint16), n_pixels)
    raw = np.tile(stages << 14 | random.integers(0, 2**14, n_pixels, np.uint16), (n_images, 1))
    maps = random.uniform(0.5, 2, (2, 3, n_pixels)).astype(np.float32)
    converted = np.zeros((n_images, n_pixels), np.float32)
    if convert_all(raw, maps, converted) != 0 or not np.all(converted):
        raise LostError("convert a Jungfrau module: pixels were left out")
    into = np.zeros_like(converted).view(np.uint8)
    return [
        _against_memcpy(
            "convert a Jungfrau module to float32",
            lambda: convert_all(raw, maps, converted),
            into,
            into.shape[1],
            "≥ 0.40",
            effort,
        )
    ]


def _placing(name: str, config: DaqConfig, goal: str, effort: Effort) -> Figure:
    """Measure what fills a ring of a config's images from the datagrams of one."""
    layout, simulator = layout_of(config), Simulator(config)
    kernel = unpack_all if config.detector_type == "gigafrost" else place_all
    packets, stride = _as_received(simulator.packets(1))
    n_slots = max(2, TARGET_BYTES // ring_shape(layout, 1).slot_bytes)
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
    stride = DatagramBatch(1, packets[0].shape[1]).stride
    received = np.zeros((len(packets), len(packets[0]), stride), np.uint8)
    for port, datagrams in enumerate(packets):
        received[port, :, : datagrams.shape[1]] = datagrams
    return received.reshape(len(packets), -1), stride


def _new_ring(config: DaqConfig, n_slots: int) -> Ring:
    shape = ring_shape(layout_of(config), n_slots)
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
