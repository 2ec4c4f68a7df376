"""Whose files a run writes, and that the writer really becomes that user, for good."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daq_core.errors import InvalidRequest
from daq_core.linux.user import FileOwner, find_owner, user_name
from tests.machine.judges import absent

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
UNKNOWN = 54321
NOBODY = 65534


@pytest.mark.parametrize("writer_user_id", [0, -1])
def test_below_1_means_the_user_of_the_service_and_root_is_noted_not_warned_of(writer_user_id: int) -> None:
    owner = find_owner(writer_user_id)
    assert (owner.uid, owner.gid) == (os.geteuid(), os.getegid())
    assert owner.warning == ""
    assert ("root" in owner.note) is (os.geteuid() == 0)


@pytest.mark.parametrize("writer_user_id", [0, -1])
def test_a_minimum_holds_for_the_user_of_the_service_too(writer_user_id: int) -> None:
    own = os.geteuid()
    assert find_owner(writer_user_id, min_user_id=own).uid == own
    with pytest.raises(
        InvalidRequest, match=rf"writer_user_id={writer_user_id}\..* the lowest allowed here is"
    ):
        find_owner(writer_user_id, min_user_id=own + 1)


def test_an_id_below_the_minimum_is_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"writer_user_id=999\. The lowest allowed here is 1000\."):
        find_owner(999, min_user_id=1000)


@AS_ROOT
def test_a_known_user_has_its_own_group_and_groups() -> None:
    known = pwd.getpwuid(NOBODY)
    owner = find_owner(NOBODY)
    assert owner == FileOwner(NOBODY, known.pw_gid, tuple(os.getgrouplist(known.pw_name, known.pw_gid)))


@AS_ROOT
def test_an_unknown_number_gets_the_same_group_and_a_warning() -> None:
    owner = find_owner(UNKNOWN)
    assert (owner.uid, owner.gid) == (UNKNOWN, UNKNOWN)
    assert "is not known here" in owner.warning


@AS_ROOT
def test_an_unknown_number_gets_the_group_of_the_option() -> None:
    owner = find_owner(UNKNOWN, writer_group=77)
    assert (owner.gid, owner.groups) == (77, (77,))
    assert "group 77" in owner.warning


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


BECOME = """
import json, os, sys
from daq_core.linux.user import become, find_owner
become(find_owner(int(sys.argv[1])))
open(sys.argv[2], "x").close()
try:
    os.setresuid(0, 0, 0)
    back = True
except PermissionError:
    back = False
print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), back]))
"""


def become_in_a_process(writer_user_id: int, path: Path) -> list[object]:
    """Become a user in a process of its own, create a file, and return what that process says it is."""
    program = [sys.executable, "-c", BECOME, str(writer_user_id), str(path)]
    said = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    answer: list[object] = json.loads(said.stdout)
    return answer


@AS_ROOT
@pytest.mark.parametrize("uid", [NOBODY, UNKNOWN])
def test_a_process_becomes_the_owner_in_user_group_and_groups_and_never_comes_back(
    uid: int, open_folder: Path
) -> None:
    owner = find_owner(uid)
    folder = open_folder / "data"
    folder.mkdir()
    os.chown(folder, owner.uid, owner.gid)
    uids, gids, groups, back = become_in_a_process(uid, folder / "a.h5")
    assert uids == [owner.uid] * 3
    assert gids == [owner.gid] * 3
    assert groups == sorted(set(owner.groups))
    assert back is False
    created = (folder / "a.h5").stat()
    assert (created.st_uid, created.st_gid) == (owner.uid, owner.gid)


def test_the_user_of_the_service_stays_itself(tmp_path: Path) -> None:
    uids, gids, _, _ = become_in_a_process(0, tmp_path / "a.h5")
    assert uids == [os.geteuid()] * 3
    assert gids == [os.getegid()] * 3


@AS_ROOT
@pytest.mark.parametrize("ids", ["2**32 - 1, 77", "77, 2**32 - 1", "2**32 - 1, 2**32 - 1"])
def test_the_number_that_means_no_change_to_the_kernel_leaves_no_root_behind(ids: str) -> None:
    """setresuid(−1) succeeds and changes nothing."""
    program = f"""
from daq_core.errors import InvalidRequest
from daq_core.linux.user import FileOwner, become
uid, gid = {ids}
try:
    become(FileOwner(uid, gid, (77,)))
except InvalidRequest as refused:
    print(refused)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "the kernel refused" in said.stdout, said


@AS_ROOT
def test_a_service_that_is_not_root_cannot_write_as_another_user() -> None:
    program = f"""
import os
from daq_core.errors import InvalidRequest
from daq_core.linux.user import find_owner
os.setresuid({UNKNOWN}, {UNKNOWN}, {UNKNOWN})
assert find_owner({UNKNOWN}).uid == {UNKNOWN}
try:
    find_owner({NOBODY})
except InvalidRequest as refused:
    print(refused)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert f"Cannot write as writer_user_id={NOBODY}: the service runs as user {UNKNOWN}" in said.stdout
    assert "root" in said.stdout


CANNOT_BECOME = f"""
from daq_core.errors import InvalidRequest
from daq_core.linux.user import become, find_owner
try:
    become(find_owner({UNKNOWN}))
except InvalidRequest as refused:
    print(refused)
"""


@AS_ROOT
@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"], "without CAP_SETUID and CAP_SETGID"),
        (
            ["setpriv", "--bounding-set", "-setuid", "--inh-caps", "-setuid"],
            "without CAP_SETUID and CAP_SETGID",
        ),
        (["unshare", "--user", "--map-root-user"], "in a user namespace that has only one user"),
    ],
    ids=["no capability", "no CAP_SETUID", "user namespace"],
)
def test_root_that_cannot_change_the_user_says_so_as_a_service_that_is_not_root_does(
    prefix: list[str], reason: str
) -> None:
    try:
        tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        absent("userns", str(error))
    if tried.returncode != 0:
        absent("userns", tried.stderr.strip())
    program = [*prefix, sys.executable, "-c", CANNOT_BECOME]
    said = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert f"Cannot write as writer_user_id={UNKNOWN}: the service runs as root, but" in said.stdout, said
    assert reason in said.stdout


def test_a_user_is_shown_by_name_or_else_by_number() -> None:
    assert user_name(0) == "root"
    assert user_name(UNKNOWN) == str(UNKNOWN)
