"""Where compiled kernels are kept: anywhere or nowhere, it must not hinder; and whose are removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import daq_core
from daq_core.kernels.cache import NAME, remove_others

HOLDER = """
import sys
from pathlib import Path
from daq_core.kernels.cache import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

KERNEL = """
from daq_core.kernels.compiling import kernel_of
from daq_core.kernels.loading import load_kernels
from numba import types

@kernel_of(types.int64(types.int64))
def twice(n):
    return 2 * n

loaded = load_kernels()
assert twice(21) == 42
print(loaded.n_compiled, loaded.trouble or "kept", loaded.folder or "nowhere", sep="|")
"""

KERNELS = """
from daq_core.kernels.compiling import kernel_of
from daq_core.kernels.loading import load_kernels
from numba import types

OF_INTEGER = types.int64(types.int64)

@kernel_of(OF_INTEGER)
def once(n):
    return n

@kernel_of(OF_INTEGER)
def twice(n):
    return 2 * n

@kernel_of(OF_INTEGER)
def thrice(n):
    return 3 * n

told = []
loaded = load_kernels(lambda n_done, n_kernels: told.append(n_done), lambda: 2)
assert [once(7), twice(7), thrice(7)] == [7, 14, 21]
print(loaded.n_compiled, told[:1] + told[-1:] if told else "nothing told", sep="|")
"""


def old_folder(root: Path, name: str) -> Path:
    folder = root / (NAME + name)
    folder.mkdir(parents=True)
    (folder / "kernel.nbi").write_text("x")
    return folder


def run_kernel(folder: Path, home: Path, program: str = KERNEL, **environment: str) -> list[str]:
    """Load a kernel in a process of its own; return how many were compiled, what hindered, and the folder."""
    source = folder / "some_kernel.py"
    source.write_text(program)
    done = subprocess.run(
        [sys.executable, str(source)],
        env={"PATH": "", "PYTHONPATH": os.getcwd(), "HOME": str(home), "TMPDIR": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


def test_an_edit_in_any_room_makes_another_folder(tmp_path: Path) -> None:
    """numba looks at the file of a kernel alone; an edit of a file that it calls would run the old code."""
    package = tmp_path / "daq_core"
    shutil.copytree(Path(daq_core.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def folder() -> str:
        program = "from daq_core.kernels.cache import choose_folder; print(choose_folder())"
        environment = {"PATH": "", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
        return subprocess.check_output([sys.executable, "-P", "-c", program], env=environment, text=True)

    seen = {folder(), folder()}
    assert len(seen) == 1
    for room in ("ring/words.py", "assembling/runs.py", "detectors/sls.py", "errors.py"):
        with (package / room).open("a") as source:
            source.write("# an edit\n")
        now = folder()
        assert now not in seen
        seen.add(now)


def test_folders_of_other_versions_are_removed_but_for_those_in_use(tmp_path: Path) -> None:
    ours, unused, used = (old_folder(tmp_path, name) for name in ("ours", "unused", "used"))
    other = tmp_path / "not-kernels"
    other.mkdir()
    link = tmp_path / (NAME + "link")
    link.symlink_to(other)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(used)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert remove_others(ours) == [unused]
        assert ours.exists()
        assert used.exists()
        assert other.exists()
        assert link.is_symlink()
        holder.communicate()
    assert remove_others(ours) == [used]


def test_a_kernel_is_compiled_once(tmp_path: Path) -> None:
    assert run_kernel(tmp_path, tmp_path)[:2] == ["1", "kept"]
    assert run_kernel(tmp_path, tmp_path)[:2] == ["0", "kept"]


def test_several_processes_compile_and_one_has_all(tmp_path: Path) -> None:
    assert run_kernel(tmp_path, tmp_path, KERNELS) == ["3", "[0, 3]"]
    assert run_kernel(tmp_path, tmp_path, KERNELS) == ["0", "nothing told"]


@pytest.mark.parametrize(
    "home", ["/proc/none", "nowhere"], ids=["a home that cannot be written", "no home at all"]
)
def test_without_a_home_kernels_are_kept_where_temporary_files_are(tmp_path: Path, home: str) -> None:
    n_compiled, kept, folder = run_kernel(tmp_path, Path(home))
    assert (n_compiled, kept) == ("1", "kept")
    assert Path(folder).parent == tmp_path / f"std-daq-ioc-{os.geteuid()}"
    assert Path(folder).parent.stat().st_mode & 0o777 == 0o700
    assert run_kernel(tmp_path, Path(home))[0] == "0"


def test_a_folder_for_temporary_files_that_others_may_write_in_is_not_used(tmp_path: Path) -> None:
    planted = tmp_path / f"std-daq-ioc-{os.geteuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    n_compiled, trouble, folder = run_kernel(tmp_path, Path("/proc/none"))
    assert (n_compiled, folder) == ("1", "nowhere")
    assert trouble == "no folder for them is writable"


def test_a_named_folder_that_cannot_be_written_does_not_hinder(tmp_path: Path) -> None:
    n_compiled, trouble, folder = run_kernel(tmp_path, tmp_path, NUMBA_CACHE_DIR="/proc/none")
    assert (n_compiled, folder) == ("1", "/proc/none")
    assert "/proc/none" in trouble


@pytest.mark.parametrize(("suffix", "damage"), [(".nbi", b"\x80"), (".nbc", b"\x80\x04]"), (".nbc", b"")])
def test_damaged_kernels_are_compiled_anew(tmp_path: Path, suffix: str, damage: bytes) -> None:
    (folder,) = run_kernel(tmp_path, tmp_path)[2:]
    for file in Path(folder).rglob("*" + suffix):
        file.write_bytes(damage)
    assert run_kernel(tmp_path, tmp_path)[:2] == ["1", "kept"]
    assert run_kernel(tmp_path, tmp_path)[:2] == ["0", "kept"]
