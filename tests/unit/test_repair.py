"""A file whose writer was killed is made readable again, and no other file is touched."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - to read compressed images
import numpy as np
import pytest

from daq_core.files.image_file import ImageFile
from daq_core.files.layout import COUNTERS
from daq_core.files.repair import repair
from daq_core.files.superblock import lookup3
from daq_core.state.losses import Losses
from tests.processes import image_writer
from tests.processes.image_writer import RUN, STOP_TIME, append, assert_holds

ROOT = Path(__file__).parents[2]

WRITE_5 = """
import os, signal, sys
import numpy as np
from daq_core.files import layout as file_layout
from daq_core.files import image_file as hdf5
from daq_core.files import repair
from tests.processes.image_writer import RUN, append, rows
path = sys.argv[1]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def write_5():
    file = hdf5.ImageFile.create(path, shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 5)
    return file
"""


def die(path: Path, code: str) -> None:
    """Run code that ends in its own SIGKILL at a chosen place."""
    process = subprocess.run([sys.executable, "-c", WRITE_5 + code, str(path)], cwd=ROOT, timeout=30)
    assert process.returncode == -signal.SIGKILL


def finished_file(path: Path, n: int = 2) -> Path:
    file = ImageFile.create(str(path), shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, n)
    file.close(state="FINISHED", message="Completed.", stop_time=STOP_TIME, counters={})
    return path


# ---- killed writers


@pytest.mark.parametrize("seed", range(12))
def test_a_writer_killed_at_any_time_loses_no_counted_image(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.h5"
    chance = random.Random(seed)
    hand_over = (1, 3, 64)[seed % 3]
    compression = ("none", "bitshuffle-lz4", "none", "bitshuffle-zstd")[seed % 4]
    options = ("--hand-over", str(hand_over), "--compression", compression)
    with image_writer.start(path, *options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        counted = [int(line) for line in process.communicate(timeout=20)[0].splitlines() if line]
    with pytest.raises(OSError, match="already open"):
        h5py.File(path)
    report = repair(str(path))
    assert report.outcome == "repaired"
    assert report.n_images is not None
    assert report.n_images >= max(counted, default=0)
    assert report.n_images % hand_over == 0
    with h5py.File(path) as file:
        assert_holds(file, report.n_images)
        assert file["entry/run/state"].asstr()[()] == "FAILED"
        message = f"ERROR: writer lost; {report.n_images} images recovered."
        assert file["entry/run/message"].asstr()[()] == message
    assert repair(str(path)).outcome == "intact"


def test_a_writer_killed_before_its_first_image_leaves_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(path, "append = lambda *_: die()\nwrite_5()")
    report = repair(str(path))
    assert (report.outcome, report.n_images) == ("repaired", 0)
    with h5py.File(path) as file:
        assert_holds(file, 0)


def test_rows_whose_image_was_not_counted_any_more_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(
        path,
        """
file = write_5()
for column, values in zip(file._columns, rows(5, 2)):
    column.append(values)
file._file.flush()
die()
""",
    )
    assert repair(str(path)).n_images == 5
    with h5py.File(path) as file:
        assert_holds(file, 5)


def test_a_state_that_the_writer_recorded_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(
        path,
        """
file = write_5()
file_layout.record_end(file._file, "FINISHED", "Completed.", 0.0, {})
file._file.flush()
die()
""",
    )
    assert repair(str(path)).outcome == "repaired"
    with h5py.File(path) as file:
        assert_holds(file, 5)
        assert file["entry/run/state"].asstr()[()] == "FINISHED"


def test_a_file_that_was_closed_without_an_end_is_given_one(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(path, "file = write_5()\nfile._file.close()\ndie()")
    assert repair(str(path)).outcome == "repaired"
    with h5py.File(path) as file:
        assert_holds(file, 5)
        assert file["entry/run/state"].asstr()[()] == "FAILED"


def test_a_repair_that_was_killed_itself_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(path, "file = write_5()\ndie()")
    die(path, "repair.record_state = die\nrepair.repair(path)")
    assert repair(str(path)).outcome == "repaired"
    with h5py.File(path) as file:
        assert_holds(file, 5)


REPAIR_TOGETHER = """
import os, sys
from daq_core.files.repair import repair
start, say = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        os.close(say)
        os.read(start, 1)  # until the parent closes the other end
        os.write(1, (repair(sys.argv[1]).outcome + "\\n").encode())
        os._exit(0)
os.close(say)
for _ in range(4):
    assert os.wait()[1] == 0
"""


def test_of_repairs_at_the_same_moment_one_does_it_and_none_disturbs_it(tmp_path: Path) -> None:
    """As a disk that hung lets several of them go at once."""
    for attempt in range(4):
        path = tmp_path / f"{attempt}.h5"
        die(path, "write_5(); die()")
        program = [sys.executable, "-c", REPAIR_TOGETHER, str(path)]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        outcomes = done.stdout.splitlines()
        assert len(outcomes) == 4
        assert outcomes.count("repaired") == 1
        with h5py.File(path) as reader:
            assert_holds(reader, 5)
            assert reader["entry/run/state"].asstr()[()] == "FAILED"


def test_more_images_fit_into_a_repaired_file(tmp_path: Path) -> None:
    """Nothing that HDF5 allocates later may overlap with what is there."""
    path = tmp_path / "a.h5"
    die(path, "file = write_5()\ndie()")
    repair(str(path))
    with h5py.File(path, "r+") as file:
        file["added"] = np.arange(100_000)
        file["entry/data/data"].attrs["remark"] = "x" * 5000
    with h5py.File(path) as file:
        assert_holds(file, 5)
        np.testing.assert_array_equal(file["added"][()], np.arange(100_000))


# ---- files that are left alone


def test_a_file_that_is_being_written_is_refused_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with image_writer.start(path, "--n-images", "20", "--wait") as process:
        image_writer.wait_until_written(process, 20)
        report = repair(str(path))
        process.communicate(timeout=30)
    assert report.outcome == "open elsewhere"
    assert "still being written" in report.message
    with h5py.File(path) as file:
        assert_holds(file, 20)


def refused_unchanged(path: Path, why: str) -> None:
    before = path.read_bytes()
    report = repair(str(path))
    assert report.outcome == "refused"
    assert report.n_images is None
    assert why in report.message
    assert path.read_bytes() == before


def test_a_good_file_is_intact_and_not_touched(tmp_path: Path) -> None:
    path = finished_file(tmp_path / "a.h5")
    before = path.read_bytes()
    report = repair(str(path))
    assert (report.outcome, report.n_images) == ("intact", 2)
    assert path.read_bytes() == before


def test_a_closed_file_says_what_its_run_lost_and_one_of_a_killed_writer_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = ImageFile.create(str(path), shape=(48, 64), dtype=np.dtype("u2"), detector_name="eiger", run=RUN)
    append(file, 10)
    counters = dict.fromkeys(COUNTERS, 0) | {"missing_packets": 20, "incomplete_images": 8}
    file.close(state="FAILED", message="ERROR: x", stop_time=STOP_TIME, counters=counters)
    closed = repair(str(path)).end
    assert closed is not None
    assert closed.losses is not None
    lost = Losses(**closed.losses)
    assert lost == Losses(missing_packets=20, incomplete_images=8, not_good_images=6)

    die(tmp_path / "b.h5", "file = write_5()\ndie()")
    killed = repair(str(tmp_path / "b.h5")).end
    assert killed is not None
    assert killed.losses is None


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"no HDF5 at all, " * 10])
def test_what_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    refused_unchanged(path, "not an HDF5 file")


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_an_hdf5_file_of_another_program_is_refused(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["entry/data/data"] = [1, 2, 3]
    refused_unchanged(path, "not a file of this DAQ")


def test_a_file_whose_writer_was_killed_while_creating_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    die(path, "hdf5.create_layout = lambda file, *_, **__: (file.flush(), die())\nwrite_5()")
    refused_unchanged(path, "before the file was complete enough")


@pytest.mark.parametrize("position", [9, 11, 28, 44])
def test_a_damaged_superblock_is_refused(tmp_path: Path, position: int) -> None:
    path = finished_file(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)
    report = repair(str(path))
    assert report.outcome == "refused"
    assert path.read_bytes() == content


@pytest.mark.parametrize("killed", [False, True])
def test_an_unfinished_copy_is_not_passed_off_as_whole(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "a.h5"
    if killed:
        die(path, "file = write_5()\ndie()")
    else:
        finished_file(path, 5)
    os.truncate(path, path.stat().st_size - 48 * 64 * 2)
    refused_unchanged(path, "cut off")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        repair(str(tmp_path / "a.h5"))


# ---- the checksum


@pytest.mark.parametrize(
    ("data", "checksum"), [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)]
)
def test_lookup3_gives_its_authors_results(data: bytes, checksum: int) -> None:
    assert lookup3(data) == checksum  # from driver5() of Bob Jenkins' lookup3.c


def test_lookup3_gives_the_checksums_that_hdf5_writes(tmp_path: Path) -> None:
    for n in range(20):
        with h5py.File(tmp_path / "a.h5", "w", libver="v110") as file:
            file["x" * (n + 1)] = np.arange(n * 1000)
        superblock = (tmp_path / "a.h5").read_bytes()[:48]
        assert struct.pack("<L", lookup3(superblock[:44])) == superblock[44:]
