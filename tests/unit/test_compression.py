"""Compressed images: every bit comes back, through hdf5plugin too, in order, whichever thread compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from daq_core.codecs import bitshuffle
from daq_core.codecs import compressor as module
from daq_core.codecs.bitshuffle import block_pixels, compress_bitshuffle_lz4, decompress_bitshuffle_lz4
from daq_core.codecs.compressor import FILTERS, Compressor
from daq_core.files.image_file import ImageFile
from daq_core.kernels.loading import load_kernels
from tests.oracle.byte_runs import encoded, sequences_of
from tests.oracle.shuffle import shuffled
from tests.processes.image_writer import RUN, STOP_TIME, append, assert_holds, compressor, images, rows

CODECS = [name for name in FILTERS if name != "none"]
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 150))
DTYPES = ["u1", "u2", "u4", "f4"]

load_kernels()


@settings(max_examples=60)
@given(data=st.data(), codec=st.sampled_from(CODECS), dtype=st.sampled_from(DTYPES), shape=SHAPES)
def test_every_bit_of_any_image_comes_back_through_hdf5plugin(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    codec: str,
    dtype: str,
    shape: tuple[int, int],
) -> None:
    """float32 too: NaN and infinity are bits like others."""
    path = tmp_path_factory.mktemp("compressed") / "a.h5"
    bits = some.arrays(f"u{np.dtype(dtype).itemsize}", shape, elements=st.integers(0, 255), fill=st.just(0))
    pixels = [data.draw(bits).view(dtype) for _ in range(3)]
    file = ImageFile.create(
        str(path),
        shape=shape,
        dtype=np.dtype(dtype),
        detector_name="eiger",
        run=RUN,
        compressor=compressor(codec, shape, dtype),
    )
    file.append(pixels, *rows(0, 3))
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    with h5py.File(path) as reader:
        found = reader["entry/data/data"]
        assert found.dtype == np.dtype(dtype)
        assert found[()].tobytes() == np.array(pixels).tobytes()


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_lz4_chunk_is_what_the_library_makes_of_the_whole_image(dtype: str) -> None:
    """The plain way, through the library's own loop over the blocks, is the twin of ours."""
    shape = (37, 119)
    pixels = images(0, 1, shape, dtype)[0]
    made = compressor("bitshuffle-lz4", shape, dtype)
    assert made is not None
    (chunk,) = (chunk.copy() for chunk in made.chunks([pixels]))
    twin = np.frombuffer(
        compress_bitshuffle_lz4(pixels.view(np.uint8).reshape(-1), pixels.itemsize), np.uint8
    )
    for stream in (chunk, twin):
        back = np.empty(pixels.nbytes, np.uint8)
        decompress_bitshuffle_lz4(stream, back, pixels.itemsize)
        assert back.tobytes() == pixels.tobytes()
    assert len(chunk) <= len(twin) * 1.1  # LZ4_HASTE, RUNS_MAY_COST


def structured(kind: str, shape: tuple[int, int] = (256, 256)) -> npt.NDArray[np.uint32]:
    """Return an image: photons, made of noise and runs; or a slope, whose bits repeat in patterns."""
    if kind == "photons":
        return np.random.default_rng(1).poisson(0.2, shape).astype(np.uint32)
    return np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.uint32)


def chunk_bytes(made: Compressor, image: npt.NDArray[Any]) -> int:
    """Return the bytes of an image's chunk, after reading it back."""
    (chunk,) = (chunk.copy() for chunk in made.chunks([image]))
    back = np.empty(image.nbytes, np.uint8)
    decompress_bitshuffle_lz4(chunk, back, image.itemsize)
    assert back.tobytes() == image.tobytes()
    return len(chunk)


@pytest.mark.parametrize("kind", ["photons", "slope"])
def test_each_block_is_made_by_the_coder_that_suits_it_whatever_came_before(kind: str) -> None:
    """Both are tried on a block now and then; until they are, it is made by the one that suited it last."""
    image, other = structured(kind), structured("slope" if kind == "photons" else "photons")
    made = Compressor("bitshuffle-lz4", image.shape, image.dtype)
    pixels = image.view(np.uint8).reshape(-1)
    most = len(compress_bitshuffle_lz4(pixels, image.itemsize)) * 1.06  # LZ4_HASTE, RUNS_MAY_COST
    assert chunk_bytes(made, image) <= most
    for _ in range(100):
        chunk_bytes(made, other)
    for _ in range(2 * module.JUDGED_EVERY):
        chunk_bytes(made, image)
    assert chunk_bytes(made, image) <= most


def test_runs_take_the_place_of_lz4_where_there_is_noise_and_leave_it_where_there_are_patterns() -> None:
    photons, slope = structured("photons"), structured("slope")
    image = np.concatenate([photons, slope])
    are_runs = [
        block == run_coded(pixels)
        for block, pixels in zip(
            blocks_of(Compressor("bitshuffle-lz4", image.shape, image.dtype), image),
            image.reshape(-1, block_pixels(image.itemsize)),
            strict=True,
        )
    ]
    n_blocks = len(are_runs)
    assert all(are_runs[: n_blocks // 2])
    assert not any(are_runs[n_blocks // 2 :])


def blocks_of(made: Compressor, image: npt.NDArray[Any]) -> list[bytes]:
    """Return the coded blocks of a chunk, which has 12 bytes before them and a length before each."""
    (chunk,) = (chunk.tobytes() for chunk in made.chunks([image]))
    blocks, at = [], 12
    while at < len(chunk):
        size = int.from_bytes(chunk[at : at + 4], "big")
        blocks.append(chunk[at + 4 : at + 4 + size])
        at += 4 + size
    return blocks


def run_coded(pixels: npt.NDArray[Any]) -> bytes:
    """Return what the coder of runs makes of a block, by its slow twin."""
    return encoded(sequences_of(shuffled(pixels).tobytes()))


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_names_its_filter_as_hdf5plugin_does(tmp_path: Path, codec: str) -> None:
    file = ImageFile.create(
        str(tmp_path / "a.h5"),
        shape=(48, 64),
        dtype=np.dtype("u2"),
        detector_name="eiger",
        run=RUN,
        compressor=compressor(codec),
    )
    append(file, 3)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    with h5py.File(tmp_path / "b.h5", "w") as theirs:
        theirs.create_dataset(
            "a",
            data=images(0, 3),
            chunks=(1, 48, 64),
            compression=hdf5plugin.Bitshuffle(cname=codec.rpartition("-")[2]),
        )
        expected = theirs["a"]._filters
    with h5py.File(tmp_path / "a.h5") as ours:
        assert ours["entry/data/data"]._filters == expected
        assert_holds(ours, 3)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_chunks_come_in_order_however_many_threads_and_places_there_are(
    monkeypatch: pytest.MonkeyPatch, threads: int, n: int
) -> None:
    """With room for three images, more of them wait for their turn."""
    monkeypatch.setattr(module, "PLACES_BYTES", 3 * 48 * 64 * 2 + 10_000)
    made = Compressor("bitshuffle-lz4", (48, 64), np.dtype("u2"), threads)
    for first in (0, 100):
        back = np.empty(48 * 64 * 2, np.uint8)
        pixels = images(first, n)
        n_chunks = 0
        for chunk, image in zip(made.chunks(list(pixels)), pixels, strict=True):
            decompress_bitshuffle_lz4(chunk, back, 2)
            np.testing.assert_array_equal(back.view("u2").reshape(48, 64), image)
            n_chunks += 1
        assert n_chunks == n


def test_the_memory_for_large_images_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.zeros((3264, 3108), np.uint32)
    assert 1 < n_places(large) <= module.PLACES_BYTES / large.nbytes
    monkeypatch.setattr(module, "PLACES_BYTES", 0)  # at least one for each thread
    assert n_places(np.zeros((8, 8), np.uint16)) == 2


def n_places(image: npt.NDArray[Any]) -> int:
    """Return at how many addresses the chunks of many images lie, with two threads."""
    made = Compressor("bitshuffle-lz4", image.shape, image.dtype, 2)
    return len({chunk.ctypes.data for chunk in made.chunks([image] * 20)})


def test_a_codec_that_fails_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitshuffle, "bound", lambda *image, **codec: 36)  # only zeros fit
    file = ImageFile.create(
        str(tmp_path / "a.h5"),
        shape=(48, 64),
        dtype=np.dtype("u2"),
        detector_name="eiger",
        run=RUN,
        compressor=compressor("bitshuffle-zstd"),
    )
    file.append([np.zeros((48, 64), np.uint16)] * 2, *rows(0, 2))
    with pytest.raises(OSError, match=r"Cannot write image 2 to .*bitshuffle cannot compress"):
        append(file, 1)
    with pytest.raises(OSError, match="bitshuffle cannot compress"):
        file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})


def test_none_is_no_compressor() -> None:
    with pytest.raises(ValueError, match="nothing to compress"):
        Compressor("none", (8, 8), np.dtype("u2"))
