"""Whether a file may be written at a path: real folders, links, devices and roots."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from daq_core.errors import InvalidRequest
from daq_core.files.output import UNKNOWN, check_output, check_space, space_left
from tests.machine.judges import absent

OTHER_USER = 54321


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def check(path: Path, roots: Sequence[str | Path] = ("/",), *, overwrite: bool = False) -> int:
    return check_output(str(path), roots=[str(root) for root in roots], overwrite=overwrite)


def test_a_new_file_in_a_folder_is_fine_and_the_free_bytes_are_told(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    assert check(tmp_path / "a.h5") == pytest.approx(space.f_bavail * space.f_frsize, rel=0.2)
    assert list(tmp_path.iterdir()) == []


def test_names_with_spaces_dots_and_umlauts_are_fine(tmp_path: Path) -> None:
    folder = tmp_path / "visit 1.2 Röntgen"
    folder.mkdir()
    assert check(folder / "a b.c.h5") > 0


def test_a_missing_folder_is_refused_in_the_words_of_the_original(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(tmp_path / "none" / "a.h5")
    assert str(refused.value) == f"Output file folder {tmp_path}/none does not exist. Please create it first."


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="file does not exist"):
        check(tmp_path / "file" / "a.h5")


def test_a_link_that_leads_nowhere_or_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("nowhere", "loop"):
        with pytest.raises(InvalidRequest, match="does not exist"):
            check(tmp_path / name / "a.h5")


def test_an_existing_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(InvalidRequest, match=r"a\.h5 exists already.*--overwrite"):
        check(path)
    assert check(path, overwrite=True) > 0
    assert path.read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_a_regular_file_may_be_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    kinds = {"folder": "a folder", "fifo": "not a regular file", "link": "a link", "dangling": "a link"}
    for name, kind in (kinds | {"socket": "not a regular file"}).items():
        with pytest.raises(InvalidRequest, match=f"{name}. There is {kind} of that name"):
            check(tmp_path / name, overwrite=overwrite)
    # An ordinary user is refused before: the folder of devices is not writable.
    reason = "not a regular file" if os.access("/dev", os.W_OK) else "folder /dev is not writable for user"
    with pytest.raises(InvalidRequest, match=reason):
        check(Path("/dev/null"), overwrite=overwrite)


def test_a_folder_outside_of_the_roots_is_refused_with_the_roots(tmp_path: Path) -> None:
    for name in ("data", "data2", "other"):
        (tmp_path / name).mkdir()
    roots = (tmp_path / "data", tmp_path / "other")
    assert check(tmp_path / "data" / "a.h5", roots) > 0
    assert check(tmp_path / "other" / "a.h5", roots) > 0
    with pytest.raises(InvalidRequest, match=r"data2 is outside of .*/data, .*/other\."):
        check(tmp_path / "data2" / "a.h5", roots)
    with pytest.raises(InvalidRequest, match="is outside of"):
        check(tmp_path / "a.h5", roots)


def test_a_link_does_not_lead_out_of_a_root(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "data" / "door").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidRequest, match="is outside of"):
        check(tmp_path / "data" / "door" / "a.h5", [tmp_path / "data"])


def test_a_root_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert check(tmp_path / "data" / "a.h5", [tmp_path / "data"]) > 0


def test_a_folder_without_permission_is_refused_with_the_name_of_the_user(open_folder: Path) -> None:
    """Seen as another user, in a process of its own: root may write anywhere."""
    if os.geteuid() != 0:
        absent("root", "looks at folders as another user")
    locked, closed = open_folder / "locked", open_folder / "closed"
    locked.mkdir(mode=0o755)
    closed.mkdir(mode=0o700)
    (closed / "inner").mkdir()
    program = f"""
import os, sys
from daq_core.errors import InvalidRequest
from daq_core.files.output import check_output
os.setgroups([]); os.setresgid({OTHER_USER}, {OTHER_USER}, {OTHER_USER})
os.setresuid({OTHER_USER}, {OTHER_USER}, {OTHER_USER})
for path in sys.argv[1:]:
    try:
        check_output(path, roots=["/"], overwrite=True)
    except InvalidRequest as refused:
        print(refused)
"""
    paths = [str(locked / "a.h5"), str(closed / "inner" / "a.h5")]
    said = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines() == [
        f"Output file folder {locked} is not writable for user {OTHER_USER}.",
        f"Output file folder {closed}/inner cannot be entered by user {OTHER_USER}.",
    ]


def test_a_run_that_cannot_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"1000 images need 8\.00 GB, but 7\.90 GB are free"):
        check_space(7_900_000_000, 1000, 8_000_000)


def test_little_space_is_a_warning_and_enough_is_none() -> None:
    assert check_space(8_500_000_000, 1000, 8_000_000) == "only 500 MB will be left on the file system"
    assert check_space(9_000_000_000, 1000, 8_000_000) == ""


def statvfs(n_blocks: int, n_free: int) -> os.statvfs_result:
    """What the kernel says of a file system with so many blocks of 4 KiB."""
    return os.statvfs_result((4096, 4096, n_blocks, n_free, n_free, 0, 0, 0, 0, 255))


def test_a_file_system_that_counts_no_blocks_is_not_a_full_one() -> None:
    assert space_left(statvfs(0, 0)) == UNKNOWN
    assert space_left(statvfs(1000, 10)) == 40960
    full = space_left(statvfs(1000, 0))
    assert full != UNKNOWN
    assert check_space(UNKNOWN, 1000, 8_000_000) == ""
    with pytest.raises(InvalidRequest, match=r"1000 images need .*, but .* are free"):
        check_space(full, 1000, 8_000_000)


def test_a_run_is_taken_on_a_file_system_that_counts_no_blocks(tmp_path: Path) -> None:
    folder = tmp_path / "ram"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "ramfs", "none", folder], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        absent("mounts", f"ramfs: {error}")
    try:
        assert check(folder / "a.h5") == UNKNOWN
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_compressed_run_is_warned_of_and_never_refused() -> None:
    """It may fit; that little is left now is sure."""
    warning = check_space(7_900_000_000, 1000, 8_000_000, compressed=True)
    assert warning == (
        "1000 images are up to 8.00 GB, as far as compression does not help, and 7.90 GB are free"
    )
    assert check_space(8_500_000_000, 1000, 8_000_000, compressed=True) == ""
    assert check_space(500_000_000, 1, 8_000_000, compressed=True).startswith("only 500 MB will be left")


def test_a_run_of_unknown_length_is_never_refused_for_space() -> None:
    assert check_space(10**10, 0, 8_000_000) == ""
    assert check_space(10, 0, 8_000_000) != ""
