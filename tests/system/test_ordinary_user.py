"""The whole test suite as an ordinary user runs it: a bare home folder, a clone, `make test`, no rights."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.judges import absent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ordinary_user() -> Iterator[pwd.struct_passwd]:
    """A user made for this test, with a home folder of its own; both are gone after it."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        absent("users", "makes a user")
    name = f"stddaq{os.getpid()}"
    made = subprocess.run(
        ["useradd", "--create-home", "--shell", "/bin/sh", name], capture_output=True, text=True
    )
    if made.returncode != 0:
        absent("users", made.stderr.strip())
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)


@pytest.mark.night
@pytest.mark.timeout(3600)
def test_make_test_passes_for_an_ordinary_user_in_a_clone_of_its_own(
    ordinary_user: pwd.struct_passwd,
) -> None:
    """Debian's own Python, no capabilities; what needs root is skipped with its reason."""
    home = Path(ordinary_user.pw_dir)
    subprocess.run(["git", "clone", "--quiet", ROOT, home / "clone"], check=True)
    subprocess.run(["chown", "--recursive", ordinary_user.pw_name, home], check=True)
    rights = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    user = ["--reuid", str(ordinary_user.pw_uid), "--regid", str(ordinary_user.pw_gid)]
    done = subprocess.run(
        ["setpriv", *user, *rights, "make", "-C", str(home / "clone"), "test"],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
