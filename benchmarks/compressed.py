"""From the socket to a compressed file: against the bare compressor, a C program and a bare receiver."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks import detectors
from benchmarks.cpu import use_two_cores
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.limits import PACKET_BYTES, search
from benchmarks.receivers import CReceiver, Received, compiled, known_pixels
from benchmarks.runs import RunCost, running_daq, take_run
from benchmarks.traffic import Photons, Traffic
from daq_core.codecs import bitshuffle
from daq_core.codecs.compressor import Compressor
from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.files.image_file import ImageFile
from daq_core.files.layout import RunMetadata
from daq_core.kernels.loading import load_kernels

COMPRESSION = "bitshuffle-lz4"
HAND_OVER = 32
IMAGES_PER_SECOND = 1000  # about what one core compresses; only used to choose the length
MOST_ROUNDS = 3
MAX_TRIES = 6


def writer_per_core(effort: Effort) -> list[Figure]:
    """Images of 1 MiB from memory into a compressed file, by one thread, opening and closing included."""
    load_kernels()
    simulator = Photons(detectors.jungfrau())
    images = [simulator.image(image_id) for image_id in range(simulator.n_pictures)]
    images = [images[i % len(images)].copy() for i in range(HAND_OVER)]
    n_images = max(2 * HAND_OVER, int(effort.seconds * IMAGES_PER_SECOND) // HAND_OVER * HAND_OVER)
    pairs, n_bytes = [], 0
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder:
        path = Path(folder, "a.h5")
        for _ in range(effort.rounds):
            bare, n_bytes = _bare(images, n_images)
            pairs.append((1 / _compressed(path, images, n_images), 1 / bare))
    ratio = images[0].nbytes / n_bytes
    return [
        Figure.ratio(
            "write 1 MiB images with bitshuffle-LZ4, one thread",
            "the bare compressor of hdf5plugin",
            pairs,
            goal="≥ 0.85",
            unit="images/ms",
            note=f"{n_images} images, compressed {ratio:.1f} times",
        )
    ]


def _bare(images: list[Any], n_images: int) -> tuple[float, int]:
    """Return the CPU milliseconds of an image when nothing is done but to compress it, and its bytes."""
    n_pixels, item_bytes = images[0].size, images[0].itemsize
    block = bitshuffle.block_pixels(item_bytes)
    into = np.empty(bitshuffle.bound(n_pixels, item_bytes, block), np.uint8)
    start, n_bytes = time.thread_time(), 0
    for i in range(n_images):
        pixels = images[i % len(images)].ctypes.data
        n_bytes = bitshuffle.compress_lz4_blocks(pixels, into.ctypes.data, n_pixels, item_bytes, block)
    return (time.thread_time() - start) / n_images * 1e3, n_bytes


def _compressed(path: Path, images: list[Any], n_images: int) -> float:
    """Return the CPU milliseconds of an image from memory to file, after reading all of them."""
    start = time.thread_time()
    file = ImageFile.create(
        str(path),
        shape=images[0].shape,
        dtype=images[0].dtype,
        detector_name="bench",
        run=RunMetadata(1, n_images, 0.0, "{}", "benchmark", "jungfrau", 16),
        compressor=Compressor(COMPRESSION, images[0].shape, images[0].dtype, threads=1),
    )
    zeros = np.zeros(HAND_OVER)
    for first in range(0, n_images, HAND_OVER):
        ids = np.arange(first, first + HAND_OVER, dtype=np.uint64)
        file.append(images, ids, zeros.astype(np.uint64), zeros.astype(np.uint32), zeros)
    file.close(state="FINISHED", message="Completed.", stop_time=0.0, counters={})
    used = time.thread_time() - start
    with h5py.File(path) as written:
        for i, image in enumerate(written["entry/data/data"]):
            if (image != images[i % HAND_OVER]).any():
                raise LostError(f"image {i} of {path} has other pixels than were written")
    path.unlink()
    return used / n_images * 1e3


def socket_to_compressed_file(effort: Effort) -> list[Figure]:
    """CPU time of all our processes against a plain C program; then the highest lossless rate."""
    return [*asyncio.run(_measure_cpu(effort)), *asyncio.run(_measure_rate(effort))]


async def _measure_cpu(effort: Effort) -> list[Figure]:
    config = detectors.jungfrau().merge({"compression": COMPRESSION})
    rate, n_tries = effort.packets_per_second / 2, 0
    pairs: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder,
        Traffic(config, photons=True) as traffic,
    ):
        reference = PlainProgram(config, Path(folder, "plain.h5"))
        async with running_daq(config) as daq:
            while len(pairs) < effort.rounds:
                rate_hz = rate / traffic.n_packets
                n_images = max(2, round(rate_hz * effort.seconds * 2))
                try:
                    ours = await take_run(
                        daq, traffic, Path(folder, "ours.h5"), n_images, rate_hz, n_compared=n_images
                    )
                    theirs = await asyncio.to_thread(reference.take_run, traffic, n_images, rate_hz)
                except LostError:
                    n_tries += 1
                    if n_tries == MAX_TRIES:
                        raise
                    rate *= 0.7
                    continue
                used = ours.control_s + ours.receiver_s + ours.writer_s
                pairs.append((used / n_images * 1e3, theirs / n_images * 1e3))
    return [
        Figure.ratio(
            "1 MiB image from socket to compressed file",
            "C: blocking recvmmsg, copied, H5Dwrite with the bitshuffle filter",
            pairs,
            goal="≤ 0.65",
            unit="ms/image",
            note=f"{rate / 1000:.0f} kpps, every pixel compared",
        ),
        Figure(
            "CPU time of a 1 MiB image from socket to compressed file",
            "",
            tuple(ours for ours, _ in pairs),
            goal="≤ 1.0 ms",
            note="std_detector_buffer: 4.1 ms, uncompressed",
            unit="ms",
        ),
    ]


class PlainProgram:
    """``reference/to_hdf5.c``, compiled now and started for each stream; it listens on a port of its own.

    Raises
    ------
    SkippedError  there is no C compiler, or no HDF5 library to build it with
    """

    def __init__(self, config: DaqConfig, path: Path) -> None:
        self._program = compiled("to_hdf5", "hdf5")
        self._path = path
        self._port = detectors.free_ports(1)
        self._layout = layout_of(config)

    def take_run(self, traffic: Traffic, n_images: int, rate_hz: float) -> float:
        """Return the CPU seconds of a run; LostError when a packet or a pixel is missing."""
        here, first_id = self._layout.ports[0], traffic.next_id
        arguments = [self._port, n_images * traffic.n_packets, traffic.n_packets, int(here.payload_bytes)]
        arguments += [*self._layout.image_shape, first_id]
        with subprocess.Popen(
            [self._program, *map(str, arguments), str(self._path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH},
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{self._program} did not start")
            sent = traffic.send(self._port, n_images, rate_hz)
            said = process.stdout.readline().split()
        if not said:
            raise RuntimeError(f"{self._program} ended with {process.returncode}; its messages above say why")
        if int(said[0]) != sent.n_packets:
            raise LostError(f"{sent.n_packets} packets were sent, the reference wrote {said[0]}")
        pixels = known_pixels(traffic.config, traffic.pictures)
        with h5py.File(self._path) as file:
            for i, image in enumerate(file["data"]):
                if (image != pixels(first_id + i)).any():
                    raise LostError(f"image {i} of the reference has other pixels than were sent")
        self._path.unlink()
        return float(said[1])


async def _measure_rate(effort: Effort) -> list[Figure]:
    config = detectors.jungfrau().merge({"compression": COMPRESSION})
    ours: list[tuple[float, RunCost | Received]] = []
    theirs: list[tuple[float, RunCost | Received]] = []
    with (
        tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder,
        CReceiver("drop", config) as bare,
        Traffic(config, photons=True) as traffic,
    ):
        async with running_daq(config) as daq:

            async def into_file(n_images: int, rate_hz: float) -> RunCost:
                path = Path(folder, "run.h5")
                return await take_run(daq, traffic, path, n_images, rate_hz, n_compared=n_images)

            async def into_c(n_images: int, rate_hz: float) -> Received:
                return await asyncio.to_thread(bare.receive, traffic, n_images, rate_hz)

            for _ in range(min(effort.rounds, MOST_ROUNDS)):
                theirs.append(await search(into_c, traffic.n_packets, effort))
                ours.append(await search(into_file, traffic.n_packets, effort))
    gigabytes = statistics.median(rate for rate, _ in ours) * PACKET_BYTES / 1e9
    return [
        Figure.ratio(
            "highest lossless rate, sender to compressed file",
            "C receiver that drops payloads",
            [(a[0] / 1e3, b[0] / 1e3) for a, b in zip(ours, theirs, strict=True)],
            goal="≥ 0.30",
            unit="kpps",
            note=f"{gigabytes:.2f} GB/s on {use_two_cores()} cores, every pixel compared",
        )
    ]


BENCHMARKS = (writer_per_core, socket_to_compressed_file)
