"""CPU time of writing uncompressed images, against ``os.pwrite`` of the same bytes; reading several files."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure, LostError, SkippedError
from daq_core.files.image_file import ImageFile
from daq_core.files.layout import RunMetadata
from daq_core.files.parts import make_virtual_file, part_path, share_of
from daq_core.simulating.simulator import Simulator

N_PARTS = 3
IMAGES_PER_SECOND = 1000  # about what one core writes; only used to choose the length
HAND_OVERS = ((1, "a flush each image"), (8, "a flush every 8 images"), (32, "a flush every 32 images"))
GOALS = {32: "≤ 1.10"}  # a writer that is busy flushes that often; one at leisure may take longer


def uncompressed(effort: Effort) -> list[Figure]:
    """Images of 1 MiB from memory into a file, opening and closing included."""
    simulator = Simulator(detectors.jungfrau())
    images = [simulator.image(image_id) for image_id in range(simulator.n_pictures)]
    images = list(_in_pages([images[i % len(images)] for i in range(64)]))
    n_images = max(32, int(effort.seconds * IMAGES_PER_SECOND))
    figures = []
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder:
        for n_at_once, how in HAND_OVERS:
            pairs = []
            for number in range(effort.rounds):
                path = Path(folder) / f"{n_at_once}-{number}"
                ours = _hdf5(path.with_suffix(".h5"), images, n_images, n_at_once)
                pairs.append((ours, _plain(path.with_suffix(".raw"), images, n_images)))
            figures.append(
                Figure.ratio(
                    f"write 1 MiB images to HDF5, {how}",
                    "os.pwrite",
                    pairs,
                    goal=GOALS.get(n_at_once, ""),
                    unit="ms/image",
                    note=f"{n_images} images",
                )
            )
    return figures


def past_the_cache(effort: Effort) -> list[Figure]:
    """The same with O_DIRECT, as a run does it where the file system can."""
    simulator = Simulator(detectors.jungfrau())
    images = [simulator.image(image_id) for image_id in range(simulator.n_pictures)]
    images = list(_in_pages([images[i % len(images)] for i in range(64)]))
    n_images = max(32, int(effort.seconds * IMAGES_PER_SECOND))
    pairs = []
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder:
        _require_o_direct(folder)
        for number in range(effort.rounds):
            path = Path(folder) / f"direct-{number}"
            ours = _hdf5(path.with_suffix(".h5"), images, n_images, 8, direct=True)
            pairs.append((ours, _plain(path.with_suffix(".raw"), images, n_images)))
    return [
        Figure.ratio(
            "write 1 MiB images to HDF5 past the page cache, a flush every 8 images",
            "os.pwrite into the cache",
            pairs,
            goal="≤ 1.10",
            unit="ms/image",
            note=f"{n_images} images",
        )
    ]


def _in_pages(images: list[Any]) -> Any:
    """Return copies that begin at pages, as in a ring."""
    memory = np.frombuffer(mmap.mmap(-1, len(images) * images[0].nbytes), images[0].dtype)
    copies = memory.reshape(len(images), *images[0].shape)
    copies[:] = images
    return copies


def _require_o_direct(folder: str) -> None:
    try:
        os.close(os.open(os.path.join(folder, "probe"), os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        raise SkippedError(f"the file system of {folder} has no O_DIRECT") from None


def reading_several_files(effort: Effort) -> list[Figure]:
    """All images through the virtual file over three parts, against the same images in one file."""
    shape, n_images = (512, 1024), max(30, int(effort.seconds * IMAGES_PER_SECOND) // 4)
    image = np.arange(shape[0] * shape[1], dtype="u2").reshape(shape)
    with tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-") as folder:
        whole, path = Path(folder, "whole.h5"), Path(folder, "run.h5")
        _write(whole, image, n_images, 0, 1)
        for number in range(N_PARTS):
            share = share_of(n_images, number, N_PARTS)
            _write(Path(part_path(str(path), number)), image, share, number, N_PARTS)
        make_virtual_file(str(path), detector_name="bench")
        pairs = [(1 / _read(path, n_images), 1 / _read(whole, n_images)) for _ in range(effort.rounds)]
    return [
        Figure.ratio(
            f"read 1 MiB images of {N_PARTS} writers through the file over theirs",
            "one plain file",
            [(ours * n_images, theirs * n_images) for ours, theirs in pairs],
            unit="images/s",
            note=f"{n_images} images, one by one",
        )
    ]


def _write(path: Path, image: Any, n_images: int, writer: int, n_writers: int) -> None:
    run = RunMetadata(1, n_images, 0.0, "{}", "benchmark", "jungfrau", 16, writer, n_writers)
    file = ImageFile.create(str(path), shape=image.shape, dtype=image.dtype, detector_name="bench", run=run)
    zeros = np.zeros(n_images)
    file.append([image] * n_images, zeros.astype("u8"), zeros.astype("u8"), zeros.astype("u4"), zeros)
    file.close(state="FINISHED", message="Completed.", stop_time=0.0, counters={})


def _read(path: Path, n_images: int) -> float:
    """Return the seconds it takes to open a file and read its images one by one."""
    start, total = wall(), 0
    with h5py.File(path) as file:
        data = file["entry/data/data"]
        for i in range(n_images):
            total += int(data[i][-1, -1])
    if total != n_images * 0xFFFF:  # the last pixel of each
        raise LostError(f"{path} has other pixels than were written")
    return wall() - start


def _hdf5(path: Path, images: list[Any], n_images: int, n_at_once: int, *, direct: bool = False) -> float:
    """Return the CPU milliseconds of an image, after checking some of them in the file."""
    start = time.thread_time()
    file = ImageFile.create(
        str(path),
        shape=images[0].shape,
        dtype=images[0].dtype,
        detector_name="bench",
        direct=direct,
        run=RunMetadata(
            run_id=1,
            n_images=n_images,
            start_time=0.0,
            config_json="{}",
            software="benchmark",
            detector_type="jungfrau",
            bit_depth=16,
        ),
    )
    for first in range(0, n_images, n_at_once):
        ids = np.arange(first, min(first + n_at_once, n_images), dtype=np.uint64)
        zeros = np.zeros(len(ids))
        file.append(
            [images[i % len(images)] for i in ids.tolist()],
            ids,
            zeros.astype(np.uint64),
            zeros.astype(np.uint32),
            zeros,
        )
    file.close(state="FINISHED", message="Completed.", stop_time=0.0, counters={})
    used = time.thread_time() - start
    with h5py.File(path) as written:
        data = written["entry/data/data"]
        for i in (0, n_images // 2, n_images - 1):
            if len(data) != n_images or (data[i] != images[i % len(images)]).any():
                raise LostError(f"image {i} of {path} has other pixels than were written")
    path.unlink()
    return used / n_images * 1e3


def _plain(path: Path, images: list[Any], n_images: int) -> float:
    start = time.thread_time()
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    for i in range(n_images):
        image = images[i % len(images)]
        if os.pwrite(descriptor, image, i * image.nbytes) != image.nbytes:
            raise LostError(f"{path}: the disk is full")
    os.close(descriptor)
    used = time.thread_time() - start
    path.unlink()
    return used / n_images * 1e3


BENCHMARKS = (uncompressed, past_the_cache, reading_several_files)
