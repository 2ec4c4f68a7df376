"""Images past the page cache: the same file to every reader, and the ordinary way wherever that cannot be."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daq_core.files.direct_io import ELSEWHERE, is_worth_it
from daq_core.files.image_file import ImageFile
from tests.processes.image_writer import RUN, STOP_TIME, assert_holds, images, rows

SHAPE = (128, 512)
IMAGE_BYTES = 128 * 512 * 2


def in_pages(n: int, first: int = 0) -> npt.NDArray[Any]:
    """Images that begin at pages, as in a ring."""
    memory = np.frombuffer(mmap.mmap(-1, max(1, n) * IMAGE_BYTES), "u2")[: n * 128 * 512]
    pixels = memory.reshape(n, *SHAPE)
    pixels[:] = images(first, n, SHAPE)
    return pixels


def create(path: Path, shape: tuple[int, int] = SHAPE, **options: Any) -> ImageFile:
    options.setdefault("direct", True)
    return ImageFile.create(
        str(path), shape=shape, dtype=np.dtype("u2"), detector_name="eiger", run=RUN, **options
    )


def close(file: ImageFile) -> None:
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})


def append(file: ImageFile, n: int, **options: Any) -> None:
    file.append(list(in_pages(n, file.n_written)), *rows(file.n_written, n), **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose file system has O_DIRECT."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip(f"the file system of {tmp_path} has no O_DIRECT")
    return tmp_path


def n_direct(file: ImageFile) -> int:
    assert file.direct is not None
    return sum(address != ELSEWHERE for address in file.direct.addresses)


@settings(max_examples=15)
@given(
    hand_overs=st.lists(
        st.tuples(st.sampled_from([1, 2, 7, 32]), st.booleans(), st.booleans()), min_size=1, max_size=8
    )
)
def test_any_mix_of_ways_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, hand_overs: list[tuple[int, bool, bool]]
) -> None:
    """Directly, through HDF5 because images queue up or do not begin at a page."""
    path = tmp_path_factory.mktemp("direct") / "a.h5"
    file = create(path)
    for n, queueing, aligned in hand_overs:
        pixels = in_pages(n, file.n_written)
        if not aligned:
            shifted = np.empty(n * 128 * 512 + 8, "u2")[8:].reshape(n, *SHAPE)
            shifted[:] = pixels
            pixels = shifted
        file.append(list(pixels), *rows(file.n_written, n), queueing=queueing)
    close(file)
    with h5py.File(path) as reader:
        assert_holds(reader, sum(n for n, _, _ in hand_overs), SHAPE)


def test_nearly_all_images_of_a_run_go_directly(folder: Path) -> None:
    file = create(folder / "a.h5")
    for _ in range(20):
        append(file, 10)
    assert n_direct(file) > 170
    close(file)
    with h5py.File(folder / "a.h5") as reader:
        assert_holds(reader, 200, SHAPE)


READ_NEWEST = """
import hashlib, sys, h5py
with h5py.File(sys.argv[1], swmr=True) as file:
    data = file["entry/data/data"]
    print(len(data), hashlib.sha256(data[len(data) - 1].tobytes()).hexdigest())
"""


def test_a_reader_of_the_growing_file_sees_each_image_that_was_counted(folder: Path) -> None:
    """Another process, since in this one HDF5 would look into what it has in memory."""
    file = create(folder / "a.h5")
    for n in (1, 3, 32):
        append(file, n)
        reader = [sys.executable, "-c", READ_NEWEST, str(folder / "a.h5")]
        seen = subprocess.run(reader, capture_output=True, text=True, check=True, timeout=60).stdout
        newest = images(file.n_written - 1, 1, SHAPE)[0]
        assert seen.split() == [str(file.n_written), hashlib.sha256(newest.tobytes()).hexdigest()]
    close(file)


def test_a_disk_that_takes_less_than_it_is_given_is_given_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.pwritev

    def some(descriptor: int, memory: list[memoryview], offset: int) -> int:
        return written(descriptor, [memory[0][: IMAGE_BYTES // 2]], offset)

    monkeypatch.setattr(os, "pwritev", some)
    file = create(folder / "a.h5")
    append(file, 5)
    close(file)
    with h5py.File(folder / "a.h5") as reader:
        assert_holds(reader, 5, SHAPE)


def test_a_file_system_that_refuses_the_first_write_gets_all_through_hdf5(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pwritev", refuse)
    file = create(folder / "a.h5")
    append(file, 5)
    append(file, 5)
    assert n_direct(file) == 0
    close(file)
    with h5py.File(folder / "a.h5") as reader:
        assert_holds(reader, 10, SHAPE)


def test_a_full_disk_is_an_error_and_the_images_before_it_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(folder / "a.h5")
    append(file, 3)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwritev", refuse)
    with pytest.raises(OSError, match=r"Cannot write image 3 to .*: No space left on device"):
        append(file, 4)
    with pytest.raises(OSError, match="No space left on device"):
        close(file)
    with h5py.File(folder / "a.h5") as reader:
        assert_holds(reader, 3, SHAPE)
        assert reader["entry/run/state"].asstr()[()] == "FAILED"


def test_an_image_in_a_wrong_place_would_not_go_unnoticed(folder: Path) -> None:
    file = create(folder / "a.h5")
    append(file, 5)
    assert file.direct is not None
    file.direct.addresses[4] += IMAGE_BYTES
    with pytest.raises(OSError, match="1 images were written to a wrong place"):
        close(file)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no tmpfs")
def test_without_o_direct_the_file_is_written_all_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = Path(f"/dev/shm/std-daq-test-{os.getpid()}.h5")
    try:
        file = create(path)
        append(file, 5)
        close(file)
        with h5py.File(path) as reader:
            assert_holds(reader, 5, SHAPE)
    finally:
        path.unlink(missing_ok=True)


def test_images_that_are_small_go_through_the_cache(tmp_path: Path) -> None:
    assert is_worth_it((512, 1024), np.dtype("u2"))
    assert not is_worth_it((16, 1024), np.dtype("u2"))
    file = create(tmp_path / "a.h5", shape=(16, 1024))
    assert file.direct is None
    close(file)


@pytest.mark.parametrize("shape", [(514, 1030), (257, 515), (256, 1027)])
def test_the_last_page_of_an_image_may_be_a_part(folder: Path, shape: tuple[int, int]) -> None:
    """As an Eiger's with its gaps; the tail ends inside of a block, once even at an odd number of pixels."""
    slot = -(-shape[0] * shape[1] * 2 // 4096) * 4096
    memory = np.frombuffer(mmap.mmap(-1, 40 * slot), np.uint8).reshape(40, slot)
    ring = memory[:, : shape[0] * shape[1] * 2]
    file = create(folder / "a.h5", shape=shape)
    for first in range(0, 40, 8):
        some = [row.view("u2").reshape(shape) for row in ring[first : first + 8]]
        for image, pixels in zip(some, images(first, 8, shape), strict=True):
            image[:] = pixels
        file.append(some, *rows(first, 8))
    assert n_direct(file) > 30
    close(file)
    with h5py.File(folder / "a.h5") as reader:
        assert_holds(reader, 40, shape)
