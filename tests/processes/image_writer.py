"""A writer process of its own, for tests that kill it, fill its disk or read along.

``python -m tests.processes.image_writer PATH`` writes images that anyone can recompute
(:func:`images`) and prints how many there are after each hand-over; then how the
close went. It is the real ImageFile; only the images are made up.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from daq_core.codecs.compressor import Compressor
from daq_core.files.image_file import ImageFile
from daq_core.files.layout import COLUMNS, RunMetadata
from daq_core.kernels.loading import load_kernels

START_TIME = 1_700_000_000.25
STOP_TIME = 1_700_000_060.5

RUN = RunMetadata(
    run_id=1_700_000_000_123_456_789,
    n_images=10,
    start_time=START_TIME,
    config_json='{"detector_name": "eiger"}',
    software="std-daq-ioc 0.1.0",
    detector_type="eiger",
    bit_depth=16,
)


def create(path: Path, shape: tuple[int, int] = (48, 64), dtype: str = "u2", **options: Any) -> ImageFile:
    options.setdefault("run", RUN)
    return ImageFile.create(str(path), shape=shape, dtype=np.dtype(dtype), detector_name="eiger", **options)


def close(file: ImageFile, **changes: Any) -> None:
    end = {"state": "FINISHED", "message": "Completed.", "stop_time": STOP_TIME, "counters": {}}
    file.close(**(end | changes))


def images(first: int, n: int, shape: tuple[int, int] = (48, 64), dtype: str = "u2") -> npt.NDArray[Any]:
    """Images first … first + n − 1 of every test: no two alike, no two pixels of one alike."""
    index = np.arange(first, first + n, dtype=np.uint32)[:, np.newaxis]
    pixel = np.arange(shape[0] * shape[1], dtype=np.uint32)
    return ((pixel * 3 + index * 1009) % 65521).astype(dtype).reshape(n, *shape)


def rows(first: int, n: int) -> list[npt.NDArray[Any]]:
    """The image_id, status, missing_packets and timestamp of images first … first + n − 1."""
    index = np.arange(first, first + n)
    values = (index + 2**40, index % 3, index % 5, START_TIME + index / 8)
    return [column.astype(kind) for column, kind in zip(values, COLUMNS.values(), strict=True)]


def compressor(
    compression: str, shape: tuple[int, int] = (48, 64), dtype: str = "u2", threads: int = 2
) -> Compressor | None:
    """What an ImageFile takes; None for `none`."""
    if compression == "none":
        return None
    load_kernels()
    return Compressor(compression, shape, np.dtype(dtype), threads)


def append(file: ImageFile, n: int, shape: tuple[int, int] = (48, 64), dtype: str = "u2") -> int:
    """Hand over the next n images."""
    first = file.n_written
    return file.append(list(images(first, n, shape, dtype)), *rows(first, n))


def assert_holds(file: h5py.File, n: int, shape: tuple[int, int] = (48, 64), dtype: str = "u2") -> None:
    """Fail unless the file has exactly the first n images and their rows, on both paths."""
    data = file["entry/data"]
    assert data["data"].shape == (n, *shape)
    assert data["data"].dtype == np.dtype(dtype)
    for first in range(0, n, 500):
        some = data["data"][first : first + 500]
        np.testing.assert_array_equal(some, images(first, len(some), shape, dtype))
    for name, column in zip(COLUMNS, rows(0, n), strict=True):
        assert data[name].dtype == column.dtype
        np.testing.assert_array_equal(data[name][()], column)
    for name in ("data", *COLUMNS):
        assert file["eiger"][name] == data[name]  # the same object


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    """Start a writer process; its stdout has a line per hand-over. ``communicate`` lets it close."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.processes.image_writer", str(path), *options],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until_written(process: subprocess.Popen[str], n_images: int) -> None:
    """Read what a writer of one image a hand-over says, until it has written so many."""
    assert process.stdout is not None
    while (line := process.stdout.readline()) != f"{n_images}\n":
        assert line, f"the writer ended before it had written {n_images} images"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--hand-over", type=int, default=1)
    parser.add_argument("--n-images", type=int, default=10**9)
    parser.add_argument("--wait", action="store_true", help="close only when stdin has a line or ends")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--file-limit", type=int, help="bytes the file may have (RLIMIT_FSIZE)")
    options = parser.parse_args()
    if options.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit, resource.RLIM_INFINITY))
    try:
        file = ImageFile.create(
            options.path,
            shape=(48, 64),
            dtype=np.dtype("u2"),
            detector_name="eiger",
            run=RUN,
            compressor=compressor(options.compression),
        )
        print(0, flush=True)
        state, message = "FINISHED", "Completed."
        try:
            while file.n_written < options.n_images:
                print(append(file, min(options.hand_over, options.n_images - file.n_written)), flush=True)
        except OSError as error:
            print("append:", error, flush=True)
            state, message = "FAILED", f"ERROR: {error}"
        if options.wait:
            sys.stdin.readline()
        file.close(state=state, message=message, stop_time=STOP_TIME, counters={"missing_packets": 3})
        print("closed", flush=True)
    except OSError as error:
        print("failed:", error, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
