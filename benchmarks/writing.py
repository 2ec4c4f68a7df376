"""CPU time of writing images into the HDF5 file, against plain ``os.pwrite`` of the same bytes."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks import detectors
from benchmarks.figure import Effort, Figure, LostError
from daq_core.file_layout import RunMetadata
from daq_core.hdf5 import ImageFile
from daq_core.simulator import Simulator

IMAGES_PER_SECOND = 1000  # about what one core writes; only used to choose the length
HAND_OVERS = ((1, "a flush each image"), (32, "a flush every 32 images"))


def uncompressed(effort: Effort) -> list[Figure]:
    """Images of 1 MiB from memory into a file, opening and closing included."""
    simulator = Simulator(detectors.jungfrau())
    images = [simulator.image(image_id) for image_id in range(simulator.n_pictures)]
    images = [images[i % len(images)].copy() for i in range(64)]
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
                    goal="≤ 1.10",
                    unit="ms/image",
                    note=f"{n_images} images",
                )
            )
    return figures


def _hdf5(path: Path, images: list[Any], n_images: int, n_at_once: int) -> float:
    """Return the CPU milliseconds of an image, after checking some of them in the file."""
    start = time.thread_time()
    file = ImageFile.create(
        str(path),
        shape=images[0].shape,
        dtype=images[0].dtype,
        detector_name="bench",
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


BENCHMARKS = (uncompressed,)
