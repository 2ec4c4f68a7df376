"""Where a run may write: what is refused before anything happens, and disks that fill up."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import h5py
import pytest
import pytest_asyncio

from daq_core.errors import DaqError, InvalidRequest, RunFailed
from daq_core.state.status import AcquisitionState, DaqState, Snapshot, WriteRequest
from tests.daq.loopback import Bench, assert_holds, jungfrau, loopback_daq
from tests.machine.judges import absent

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY, UNKNOWN_USER = 65534, 54_321
IMAGE_BYTES = 512 * 1024 * 2
DISK_BYTES = 8 * 2**20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may write as another user")


@pytest.fixture(scope="module")
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one user alone."""
    folder = Path(tempfile.mkdtemp(prefix="std-daq-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(public_folder: Path) -> AsyncIterator[Bench]:
    allowed = public_folder / "one" / "allowed"
    allowed.mkdir(parents=True)
    async with loopback_daq(jungfrau(rows=512), allowed, output_roots=(str(allowed),)) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq, READY; after each test the next run must be perfect."""
    yield module_bench
    await module_bench.stop()
    await module_bench.perfect_run(2)


def missing(folder: Path) -> Path:
    return folder / "missing" / "a.h5"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "a.h5"


def a_folder(folder: Path) -> Path:
    (folder / "folder.h5").mkdir()
    return folder / "folder.h5"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.h5")
    return folder / "pipe.h5"


def a_link(folder: Path) -> Path:
    (folder / "link.h5").symlink_to(folder / "elsewhere.h5")
    return folder / "link.h5"


def existing(folder: Path) -> Path:
    (folder / "existing.h5").write_text("somebody's data")
    return folder / "existing.h5"


def outside(folder: Path) -> Path:
    return folder.parent.parent / "outside.h5"


def outside_by_a_link(folder: Path) -> Path:
    (folder / "way-out").symlink_to(folder.parent.parent)
    return folder / "way-out" / "a.h5"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "does not exist. Please create it first."),
        (below_a_file, "does not exist. Please create it first."),
        (a_folder, "There is a folder of that name"),
        (a_pipe, "There is not a regular file of that name"),
        (a_link, "There is a link of that name"),
        (existing, "exists already"),
        (outside, "is outside of what this service may write to"),
        (outside_by_a_link, "is outside of what this service may write to"),
    ],
)
async def test_a_path_that_cannot_be_is_refused_and_nothing_changes(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], Path], says: str
) -> None:
    folder = bench.folder / make.__name__
    folder.mkdir()
    path, before = make(folder), bench.daq.snapshot
    contents = sorted(folder.rglob("*"))
    with pytest.raises(InvalidRequest, match=re.escape(says)):
        await bench.start(2, path)
    assert bench.status is before.status
    assert bench.daq.snapshot.log_total == before.log_total
    assert sorted(folder.rglob("*")) == contents
    if make is existing:
        assert path.read_text() == "somebody's data"


async def test_a_folder_that_becomes_a_link_after_the_check_fails_the_run_and_nothing_is_outside(
    bench: Bench,
) -> None:
    """Swapped while the writer, which found it good, stands still before it makes the file."""
    folder, outside = bench.folder / "swapped", bench.folder.parent / "elsewhere"
    folder.mkdir()
    outside.mkdir(exist_ok=True)

    def swap(snapshot: Snapshot) -> None:
        if snapshot.status.pending is not None and not folder.is_symlink():
            os.kill(bench.writer, signal.SIGSTOP)
            folder.rename(bench.folder / "was")
            folder.symlink_to(outside)
            os.kill(bench.writer, signal.SIGCONT)

    unsubscribe = bench.daq.subscribe(swap)
    with pytest.raises(RunFailed, match="is outside of what this service may write to"):
        await bench.start(2, folder / "a.h5")
    unsubscribe()
    assert bench.status.acquisition.state is AcquisitionState.FAILED
    assert os.listdir(outside) == os.listdir(bench.folder / "was") == []


async def test_an_existing_file_is_replaced_by_a_service_that_may_overwrite(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path, overwrite=True) as bench:
        path = tmp_path / "again.h5"
        path.write_text("old")
        for _ in range(2):
            await bench.start(3, path)
            await bench.send(ids := bench.next_ids(3))
            await bench.end()
            assert_holds(path, bench.simulator, ids)


@needs_root
async def test_files_belong_to_the_user_and_group_of_the_config(bench: Bench) -> None:
    """A known user brings its group; of an unknown one the number is the group's too."""
    folder = bench.folder / "users"
    folder.mkdir()
    for uid, gid in ((NOBODY, pwd.getpwuid(NOBODY).pw_gid), (UNKNOWN_USER, UNKNOWN_USER)):
        os.chown(folder, uid, gid)
        folder.chmod(0o700)
        await bench.daq.configure({"writer_user_id": uid})
        try:
            path, ids = await bench.start(2, folder / f"{uid}.h5"), bench.next_ids(2)
            await bench.send(ids)
            await bench.end()
        finally:
            await bench.daq.configure({"writer_user_id": 0})
        assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)
        assert_holds(path, bench.simulator, ids)


@needs_root
async def test_the_group_of_unknown_users_can_be_given_to_the_service(public_folder: Path) -> None:
    folder = public_folder / "everybodys"
    folder.mkdir()
    folder.chmod(0o777)
    config = jungfrau(rows=16, writer_user_id=UNKNOWN_USER)
    async with loopback_daq(config, folder, writer_group=4321, min_user_id=1000) as bench:
        path = await bench.start(1)
        await bench.stop()
        assert (path.stat().st_uid, path.stat().st_gid) == (UNKNOWN_USER, 4321)
        with pytest.raises(DaqError, match="The lowest allowed here is 1000"):
            await bench.daq.configure({"writer_user_id": 999})


@needs_root
async def test_a_folder_that_the_user_may_not_write_to_is_refused(bench: Bench) -> None:
    """Judged with the rights of the user who will own the file, not with those of root."""
    closed, hidden = bench.folder / "closed", bench.folder / "hidden"
    closed.mkdir(mode=0o755)
    hidden.mkdir(mode=0o700)
    (hidden / "inner").mkdir(mode=0o777)
    await bench.daq.configure({"writer_user_id": NOBODY})
    try:
        with pytest.raises(InvalidRequest, match="is not writable for user nobody"):
            await bench.start(1, closed / "a.h5")
        with pytest.raises(InvalidRequest, match="cannot be entered by user nobody"):
            await bench.start(1, hidden / "inner" / "a.h5")
    finally:
        await bench.daq.configure({"writer_user_id": 0})
    assert os.listdir(closed) == []


@pytest.fixture
def small_disk(module_bench: Bench) -> Iterator[Path]:
    """A small file system in memory; eight images of 1 MiB fill it."""
    folder = module_bench.folder / "small"
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], capture_output=True, text=True
    )
    if mount.returncode != 0:
        absent("mounts", mount.stderr.strip())
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def take_space(disk: Path, n_bytes: int) -> None:
    """Have somebody else's file take so much of a disk."""
    with open(disk / "other", "wb") as other:
        os.posix_fallocate(other.fileno(), 0, n_bytes)


@needs_root
async def test_files_that_belong_to_root_are_a_line_of_the_log_and_nothing_to_look_at(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = await bench.start(1)
    await bench.stop()
    assert "root" not in bench.daq.snapshot.health.warning
    (line,) = [record for record in caplog.records if "belong to root" in record.getMessage()]
    assert (line.levelno, str(path) in line.getMessage()) == (logging.INFO, True)


async def test_a_run_that_cannot_fit_on_the_disk_is_refused(bench: Bench, small_disk: Path) -> None:
    before = bench.status
    with pytest.raises(InvalidRequest, match=r"Not enough space: 20 images need 21 MB"):
        await bench.start(20, small_disk / "a.h5")
    assert bench.status is before
    assert os.listdir(small_disk) == []


async def test_a_run_that_fits_is_accepted_with_a_warning_that_little_is_left(
    bench: Bench, small_disk: Path
) -> None:
    path, ids = await bench.start(3, small_disk / "a.h5"), bench.next_ids(3)
    assert "will be left" in bench.daq.snapshot.health.warning
    await bench.send(ids)
    await bench.end()
    assert_holds(path, bench.simulator, ids)


@pytest.mark.parametrize("filled", [0, 2 * IMAGE_BYTES, 2 * IMAGE_BYTES + 12_345, 5 * IMAGE_BYTES])
async def test_a_disk_that_fills_up_fails_the_run_and_keeps_what_was_written(
    bench: Bench, small_disk: Path, filled: int
) -> None:
    """Somebody else's file takes the space during the run; an open-ended one fills the disk itself."""
    n_images = 7 if filled else 0
    path, ids = await bench.start(n_images, small_disk / "a.h5"), bench.next_ids(12)
    if filled:
        take_space(small_disk, filled)
    await bench.send(ids, 100)
    status = await bench.end()
    assert (status.state, status.acquisition.state) == (DaqState.READY, AcquisitionState.FAILED)
    assert "No space left on device" in status.acquisition.message
    n_written = status.acquisition.n_write_completed
    assert 0 < n_written < 8
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
    assert_holds(path, bench.simulator, ids[:n_written])


async def test_a_file_that_cannot_be_created_fails_the_run_and_nothing_else(
    bench: Bench, small_disk: Path
) -> None:
    """The disk is so full that not even an empty file fits: found when it is created, after the check."""
    take_space(small_disk, DISK_BYTES)
    request = WriteRequest(str(small_disk / "a.h5"), 0, run_id=1)
    with pytest.raises(RuntimeError, match="No space left on device"):
        await bench.daq.start(request)
    acquisition = bench.status.acquisition
    assert (bench.status.state, acquisition.state) == (DaqState.READY, AcquisitionState.FAILED)
    assert acquisition.request == request
    assert not (small_disk / "a.h5").exists()


@pytest.fixture
def experimenter(public_folder: Path) -> Iterator[tuple[pwd.struct_passwd, int]]:
    """A user made for this test, whose second group alone may write into a folder; and that group."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        absent("users", "makes a real user with two groups")
    name, group = f"stddaq{os.getpid()}", f"stddaqg{os.getpid()}"
    made = subprocess.run(["groupadd", group], capture_output=True, text=True)
    if made.returncode != 0:
        absent("users", made.stderr.strip())
    try:
        subprocess.run(["useradd", "--no-create-home", "--user-group", "--groups", group, name], check=True)
        yield pwd.getpwnam(name), grp.getgrnam(group).gr_gid
    finally:
        subprocess.run(["userdel", name], capture_output=True, check=False)
        subprocess.run(["groupdel", group], capture_output=True, check=False)


def process_status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


async def test_a_real_user_writes_by_a_supplementary_group_and_root_leaves_no_trace(
    bench: Bench, experimenter: tuple[pwd.struct_passwd, int]
) -> None:
    """Groups, gid and uid of the living writer, the file it makes, and the one that is repaired after it."""
    user, group = experimenter
    folder = bench.folder / "beamtime"
    folder.mkdir()
    os.chown(folder, 0, group)
    folder.chmod(0o2770)  # as beamlines have it: the group's, and so is what is made in it
    await bench.daq.configure({"writer_user_id": user.pw_uid})
    try:
        finished, ids = await bench.start(2, folder / "a.h5"), bench.next_ids(2)
        says = process_status(bench.writer)
        assert says["Uid"].split() == [str(user.pw_uid)] * 4
        assert says["Gid"].split() == [str(user.pw_gid)] * 4
        assert sorted(map(int, says["Groups"].split())) == sorted({user.pw_gid, group})
        assert int(says["CapEff"], 16) == int(says["CapPrm"], 16) == 0
        await bench.send(ids)
        await bench.end()
        lost = await bench.start(0, folder / "b.h5")
        await bench.send(bench.next_ids(3))
        await bench.until_written(3)
        os.kill(bench.writer, signal.SIGKILL)
        await bench.until(AcquisitionState.FAILED)
        await bench.stop()
    finally:
        await bench.daq.configure({"writer_user_id": 0})
    assert_holds(finished, bench.simulator, ids)
    with h5py.File(lost) as file:
        assert file["entry/run/state"].asstr()[()] == "FAILED"
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        about = path.stat()
        assert (about.st_uid, about.st_gid) == (user.pw_uid, group)
        assert stat.S_IMODE(about.st_mode) == 0o664 & ~umask
    assert sorted(path.name for path in folder.iterdir()) == ["a.h5", "b.h5"]
