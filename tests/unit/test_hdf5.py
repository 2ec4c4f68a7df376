"""The file of a run: layout, growth, what a reader sees meanwhile, and what happens when the disk is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daq_core.files.image_file import ImageFile
from daq_core.files.layout import COLUMNS, COUNTERS, MAX_MESSAGE_BYTES
from daq_core.files.repair import repair
from tests.machine.judges import absent
from tests.processes import image_writer
from tests.processes.image_writer import RUN, append, assert_holds, close, create, images, rows
from tests.processes.impatient_reader import impatient_reader

DATASETS = ("data", *COLUMNS)


def test_readers_who_look_for_the_file_do_not_disturb_its_making(tmp_path: Path) -> None:
    """Found by torture: the lock of one who polls for the file, taken when it is new, failed the run."""
    paths = [tmp_path / f"run{i}.h5" for i in range(40)]
    with impatient_reader(paths):
        for path in paths:
            file = create(path, shape=(2, 3))
            append(file, 1, shape=(2, 3))
            close(file)
    for path in paths:
        with h5py.File(path) as reader:
            assert_holds(reader, 1, shape=(2, 3))


@pytest.mark.parametrize("later", [0, 1, 600])
def test_rows_can_get_another_status_in_every_chunk_and_keep_it(tmp_path: Path, later: int) -> None:
    """Also when more images come after it."""
    file = create(tmp_path / "a.h5", shape=(2, 3))
    append(file, 1100, shape=(2, 3))
    changed = [0, 5, 511, 512, 513, 1023, 1024, 1099]
    file.restate(np.array(changed), 3)
    if later:
        append(file, later, shape=(2, 3))
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        status = reader["entry/data/status"][()]
        assert np.flatnonzero(status == 3).tolist() == changed
        expected = np.arange(1100 + later) % 3
        expected[changed] = 3
        np.testing.assert_array_equal(status, expected)


# ---- cut by somebody else


@pytest.mark.parametrize("left", [0, 100, -1])
@pytest.mark.parametrize("then", ["more images", "the close"])
def test_a_file_that_is_truncated_meanwhile_is_no_success(tmp_path: Path, left: int, then: str) -> None:
    file = create(tmp_path / "a.h5")
    append(file, 3)
    expected = os.stat(tmp_path / "a.h5").st_size
    seen = left if left >= 0 else expected + left
    os.truncate(tmp_path / "a.h5", seen)
    said = f"a.h5 was truncated while it was written: it has {seen} bytes, {expected} were written"
    if then == "more images":
        with pytest.raises(OSError, match=said):
            append(file, 1)
    with pytest.raises(OSError, match=said):
        close(file)


@pytest.mark.parametrize("then", ["more images", "the close"])
def test_a_file_that_is_emptied_and_made_as_long_again_is_no_success(tmp_path: Path, then: str) -> None:
    file = create(tmp_path / "a.h5")
    append(file, 3)
    expected = os.stat(tmp_path / "a.h5").st_size
    os.truncate(tmp_path / "a.h5", 0)
    os.truncate(tmp_path / "a.h5", expected)
    said = f"a.h5 was overwritten by somebody else: of {expected} bytes the first are not what was written"
    if then == "more images":
        with pytest.raises(OSError, match=said):
            append(file, 1)
    with pytest.raises(OSError, match=said):
        close(file)


# ---- what is in it


@pytest.mark.parametrize("n", [0, 1, 2, 511, 512, 513, 1025])
def test_every_dataset_is_as_long_as_what_was_written(tmp_path: Path, n: int) -> None:
    file = create(tmp_path / "a.h5", shape=(2, 3))
    for _ in range(n):
        append(file, 1, shape=(2, 3))
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        assert_holds(reader, n, shape=(2, 3))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
def test_pixels_are_stored_bit_for_bit_in_their_own_type(tmp_path: Path, dtype: str) -> None:
    file = create(tmp_path / "a.h5", dtype=dtype)
    append(file, 3, dtype=dtype)
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        assert_holds(reader, 3, dtype=dtype)


@settings(max_examples=20, deadline=None)
@given(hand_overs=st.lists(st.sampled_from([1, 2, 3, 510, 511, 512, 513, 600]), max_size=4))
def test_any_split_into_hand_overs_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, hand_overs: list[int]
) -> None:
    path = tmp_path_factory.mktemp("split") / "a.h5"
    file = create(path, shape=(2, 2))
    counts = [append(file, n, shape=(2, 2)) for n in hand_overs]
    close(file)
    assert counts == [sum(hand_overs[: i + 1]) for i in range(len(hand_overs))]
    with h5py.File(path) as reader:
        assert_holds(reader, sum(hand_overs), shape=(2, 2))


def test_both_paths_lead_to_the_same_dataset(tmp_path: Path) -> None:
    close(create(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as reader:
        for name in DATASETS:
            assert reader[f"eiger/{name}"] == reader[f"entry/data/{name}"]
            assert reader["eiger"].get(name, getlink=True).__class__ is h5py.HardLink


@pytest.mark.parametrize("name", ["EIGER", "eiger", "jungfrau"])  # before and after "entry"
def test_the_first_group_holds_the_images_under_data(tmp_path: Path, name: str) -> None:
    file = ImageFile.create(
        str(tmp_path / "a.h5"), shape=(2, 2), dtype=np.dtype("u2"), detector_name=name, run=RUN
    )
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        first = next(iter(reader))
        assert first == name
        assert isinstance(reader[first]["data"], h5py.Dataset)


def test_the_default_chain_of_nexus_leads_to_the_images(tmp_path: Path) -> None:
    close(create(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as reader:
        entry = reader[reader.attrs["default"]]
        assert entry.attrs["NX_class"] == "NXentry"
        data = entry[entry.attrs["default"]]
        assert data.attrs["NX_class"] == "NXdata"
        assert data[data.attrs["signal"]].name == "/entry/data/data"
        assert data["timestamp"].attrs["units"] == "s"


@pytest.mark.parametrize("run_id", [-(2**63), 2**63 - 1, "20230526_113713.793", "Öl µ"])
def test_the_run_id_is_stored_as_given_and_as_text(tmp_path: Path, run_id: int | str) -> None:
    close(create(tmp_path / "a.h5", run=replace(RUN, run_id=run_id)))
    with h5py.File(tmp_path / "a.h5") as reader:
        stored = reader["entry/run/run_id"]
        given = stored.asstr()[()] if isinstance(run_id, str) else int(stored[()])
        assert given == run_id
        assert reader["entry/entry_identifier"].asstr()[()] == str(run_id)


def test_the_run_is_described(tmp_path: Path) -> None:
    config = json.dumps(
        {"detector_name": "eiger", "module_positions": {str(m): [0] * 4 for m in range(5000)}}
    )
    file = create(tmp_path / "a.h5", run=replace(RUN, config_json=config))
    close(file, message="Interrupted.", counters={name: i for i, name in enumerate(COUNTERS)})
    with h5py.File(tmp_path / "a.h5") as reader:
        entry = reader["entry"]
        assert entry["start_time"].asstr()[()] == "2023-11-14T22:13:20.250000+00:00"
        assert entry["end_time"].asstr()[()] == "2023-11-14T22:14:20.500000+00:00"
        assert entry["program_name"].asstr()[()] == "std-daq-ioc"
        assert entry["program_name"].attrs["version"] == "0.1.0"
        assert entry["instrument/detector/local_name"].asstr()[()] == "eiger"
        assert entry["instrument/detector/description"].asstr()[()] == "eiger"
        assert entry["instrument/detector/bit_depth_readout"][()] == 16
        assert entry["run/n_images"][()] == 10
        assert entry["run/config"].asstr()[()] == config
        assert entry["run/state"].asstr()[()] == "FINISHED"
        assert entry["run/message"].asstr()[()] == "Interrupted."
        assert [entry["run/counters"][name][()] for name in COUNTERS] == list(range(len(COUNTERS)))


def test_a_message_that_is_too_long_is_cut_between_characters(tmp_path: Path) -> None:
    file = create(tmp_path / "a.h5")
    close(file, state="FAILED", message="x" + "µ" * MAX_MESSAGE_BYTES)
    with h5py.File(tmp_path / "a.h5") as reader:
        assert reader["entry/run/message"].asstr()[()] == "x" + "µ" * ((MAX_MESSAGE_BYTES - 1) // 2)


def test_images_begin_at_pages_and_a_small_file_stays_small(tmp_path: Path) -> None:
    file = create(tmp_path / "a.h5", shape=(480, 130))
    append(file, 2, shape=(480, 130))
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        data = reader["entry/data/data"].id
        assert data.get_num_chunks() == 2
        assert [data.get_chunk_info(i).byte_offset % 4096 for i in range(2)] == [0, 0]
        assert reader["entry/data/data"].chunks == (1, 480, 130)
    assert os.path.getsize(tmp_path / "a.h5") < 2 * 480 * 130 * 2 + 100_000


# ---- how images get in


def test_read_only_and_wrapping_views_are_written_from_where_they_are(tmp_path: Path) -> None:
    ring = images(0, 3)[[2, 0, 1]]
    ring.flags.writeable = False
    file = create(tmp_path / "a.h5")
    file.append([ring[1], ring[2], ring[0]], *rows(0, 3))
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        assert_holds(reader, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((48, 64), "u4"),
        np.zeros((64, 48), "u2"),
        np.zeros((48, 64), ">u2"),
        np.zeros((64, 48), "u2").T,
        np.zeros((48, 128), "u2")[:, ::2],
    ],
    ids=["type", "shape", "byte order", "transposed", "strided"],
)
def test_an_image_that_would_be_stored_wrong_is_refused_and_changes_nothing(
    tmp_path: Path, wrong: np.ndarray
) -> None:
    file = create(tmp_path / "a.h5")
    append(file, 1)
    with pytest.raises(ValueError, match="an image must be uint16"):
        file.append([images(1, 1)[0], wrong], *rows(1, 2))
    append(file, 1)
    close(file)
    with h5py.File(tmp_path / "a.h5") as reader:
        assert_holds(reader, 2)


def test_images_without_their_rows_are_refused(tmp_path: Path) -> None:
    file = create(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="2 images need as many rows"):
        file.append(list(images(0, 2)), *rows(0, 1))
    close(file)


def test_what_cannot_be_created_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.h5"
    with pytest.raises(OSError, match="Cannot create output file") as caught:
        create(path)
    assert str(caught.value) == f"Cannot create output file {path}: No such file or directory."


# ---- while it is being written


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
def test_a_reader_sees_all_images_of_each_hand_over_and_their_rows(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.h5"
    options = ("--hand-over", "7", "--n-images", "2100", "--compression", compression)
    with image_writer.start(path, *options) as process:
        assert process.stdout is not None
        seen = checked = 0
        process.stdout.readline()
        with h5py.File(path, swmr=True) as reader:
            data = reader["entry/data"]
            assert reader["entry/run/state"].asstr()[()] in ("WRITING", "FINISHED")
            for line in process.stdout:
                if line == "closed\n":
                    break
                data["data"].refresh()
                seen = len(data["data"])
                assert seen >= int(line)
                for name, column in zip(COLUMNS, rows(0, seen), strict=True):
                    data[name].refresh()
                    np.testing.assert_array_equal(data[name][:seen], column)
                np.testing.assert_array_equal(data["data"][seen - 1], images(seen - 1, 1)[0])
                checked += 1
            assert reader["entry/run/state"].asstr()[()] == "FINISHED"
        process.communicate(timeout=20)
    assert seen == 2100
    assert checked == 300


def test_an_ordinary_reader_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = create(path)
    opened = "import h5py, sys; h5py.File(sys.argv[1])"
    process = subprocess.run([sys.executable, "-c", opened, str(path)], capture_output=True, text=True)
    assert "already open for write" in process.stderr
    close(file)
    subprocess.run([sys.executable, "-c", opened, str(path)], check=True)


# ---- when the disk is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        absent("mounts", "only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("hand_over", "compression"), [(1, "none"), (5, "none"), (5, "bitshuffle-lz4")])
def test_a_full_disk_is_an_error_and_the_images_before_it_stay(
    small_disk: Path, hand_over: int, compression: str
) -> None:
    path = small_disk / "a.h5"
    output = written(path, "--hand-over", str(hand_over), "--compression", compression)
    n = int(output[-3])
    assert n > 100
    assert output[-2] == f"append: Cannot write image {n} to {path}: No space left on device."
    assert output[-1] == f"failed: Cannot write image {n} to {path}: No space left on device."
    repair(str(path))
    with h5py.File(path) as reader:
        assert_holds(reader, n)
        assert reader["entry/run/state"].asstr()[()] == "FAILED"
        assert reader["entry/run/message"].asstr()[()].endswith("No space left on device.")


def test_a_limit_at_any_byte_is_an_error_and_the_images_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert written(path, "--n-images", "4")[-1] == "closed"
    size = path.stat().st_size
    n_created = 0
    for limit in [*range(0, size, size // 9), size - 1]:
        path.unlink(missing_ok=True)
        output = written(path, "--n-images", "4", "--file-limit", str(limit))
        assert output[-1].startswith("failed: Cannot "), limit
        assert output[-1].endswith(": File too large."), limit
        if len(output) == 1:
            assert not path.exists()
            continue
        n_created += 1
        counted = max(int(line) for line in output if line.isdigit())
        assert repair(str(path)).outcome in ("intact", "repaired")
        with h5py.File(path) as reader:
            n = len(reader["entry/data/data"])
            assert n >= counted
            assert_holds(reader, n)
            assert reader["entry/run/state"].asstr()[()] == "FAILED"
    assert n_created > 3


def written(path: Path, *options: str) -> list[str]:
    """Let a writer process run to its end; return the lines it printed."""
    with image_writer.start(path, *options) as process:
        return process.communicate(timeout=30)[0].splitlines()
