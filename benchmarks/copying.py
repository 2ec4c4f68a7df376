"""The placement kernels against memcpy of the image they fill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import detectors
from benchmarks.figure import Effort, Figure, LostError
from daq_core.compiled import copy_bytes, kernel
from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.detectors.sls import HEADER_BYTES, put
from daq_core.simulator import Simulator
from daq_core.sockets import DatagramBatch

TARGET_BYTES = 64 * 2**20
"""Images are placed in turn into more memory than the caches hold, as in the image ring."""
SHARE = 1 / 20
"""Of a measurement's seconds: no packets to wait for here."""


@kernel
def assemble(packets: Any, stride: int, layout: Any, image: Any) -> None:
    """Put every packet of a one-port image at its place; packets (n * stride,) uint8 as received."""
    for packet in range(layout[0].n_units):
        put(packets, packet * stride + HEADER_BYTES, layout, 0, packet, image)


@kernel
def copy_image(source: Any, image: Any) -> None:
    """Copy as many bytes as an image has, with memcpy."""
    copy_bytes(image, 0, source, 0, image.shape[0])


def placement(effort: Effort) -> list[Figure]:
    """Payloads that lie behind their headers, into images of several geometries."""
    cases = (
        ("place a Jungfrau module, contiguous", detectors.jungfrau(), "≥ 0.80"),
        ("place a Jungfrau module, rows apart", detectors.jungfrau(offset=8), "≥ 0.80"),
        ("place a Jungfrau module, upside down", detectors.jungfrau(offset=8, flipped=True), "≥ 0.80"),
        ("place an Eiger half module, chip gap, upside down", detectors.eiger(flip_x=False), "≥ 0.80"),
        ("place an Eiger half module, chip gap, turned by 180°", detectors.eiger(flip_x=True), "≥ 0.45"),
    )
    return [_against_memcpy(name, config, goal, effort) for name, config, goal in cases]


def _against_memcpy(name: str, config: DaqConfig, goal: str, effort: Effort) -> Figure:
    layout = layout_of(config)
    simulator = Simulator(config)
    packets = simulator.packets(1)[0]
    image_bytes = layout.image_bytes
    targets = np.zeros((max(2, TARGET_BYTES // image_bytes), image_bytes), np.uint8)
    source = np.resize(packets.reshape(-1), image_bytes)
    batch = DatagramBatch(*packets.shape)  # lies in memory as in the receiver
    flat, stride = batch.datagrams, batch.stride
    flat.reshape(len(packets), stride)[:, : packets.shape[1]] = packets

    def place_one(target: Any) -> None:
        assemble(flat, stride, layout.ports, target)

    def copy_one(target: Any) -> None:
        copy_image(source, target)

    copy_one(targets[0])
    targets[:] = 0  # the gaps stay so
    place_one(targets[0])
    if targets[0].tobytes() != simulator.image(1).tobytes():
        raise LostError(f"{name}: other pixels than were packed")
    place_one(targets[1])
    pairs = []
    for _ in range(effort.rounds * 3):
        ours = _rate(place_one, targets, effort.seconds * SHARE)
        pairs.append((ours, _rate(copy_one, targets, effort.seconds * SHARE)))
    return Figure.ratio(name, "memcpy of the image", pairs, goal=goal, unit="GB/s")


def _rate(fill: Callable[[Any], None], targets: Any, seconds: float) -> float:
    """Return the GB of images filled in a second of CPU time, going round through the targets."""
    n_rounds = 0
    start = time.thread_time()
    while (used := time.thread_time() - start) < seconds or n_rounds == 0:
        for target in targets:
            fill(target)
        n_rounds += 1
    return float(n_rounds * targets.nbytes / used / 1e9)


BENCHMARKS = (placement,)
