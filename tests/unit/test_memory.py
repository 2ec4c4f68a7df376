"""The memory that may be had is the least of the machine's and of every control group's around us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.linux.memory import LEAST_RESERVE, Memory, present_memory
from daq_core.pipeline.ring_size import choose_ring
from ioc.program.doctor.command import EXAMPLE
from ioc.program.doctor.memory import room_for_ring
from tests.processes.control_group import control_group, inside

MIB, GIB = 2**20, 2**30
MEMINFO = f"MemTotal: {16 * 2**20} kB\nMemFree: 10 kB\nMemAvailable: {12 * 2**20} kB\n" + "".join(
    f"{name}: 0 kB\n" for name in ("Buffers", "Cached", "Active", "Inactive", "Shmem", "Slab", "SReclaimable")
)


class Tree:
    """Files as the kernel shows them: /proc of a process, and a place for its control groups."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mounted = folder / "proc", folder / "sys fs"
        (self.proc / "self").mkdir(parents=True)
        self.mounted.mkdir()
        (self.proc / "meminfo").write_text(MEMINFO)
        self.belongs("")
        self._mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        (self.proc / "self/mountinfo").write_text(self._mounts)

    def belongs(self, lines: str) -> None:
        (self.proc / "self/cgroup").write_text(lines)

    def mount(self, point: Path, version: int, root: str = "/", options: str = "rw,memory") -> None:
        kind = "cgroup cgroup " + options if version == 1 else "cgroup2 cgroup2 rw,nsdelegate"
        shown = str(point).replace(" ", "\\040")
        self._mounts += f"31 23 0:{len(self._mounts)} {root} {shown} rw,nosuid shared:9 - {kind}\n"
        (self.proc / "self/mountinfo").write_text(self._mounts)

    def group(self, name: str, **files: object) -> Path:
        """Make a group, below the place for them; ``memory_max=5`` is the file memory.max with 5 in it."""
        folder = self.mounted / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file.replace("memory_", "memory.", 1)).write_text(f"{text}\n")
        return folder

    def look(self) -> Memory:
        return present_memory()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tree.proc))
    return tree


def test_without_control_groups_it_is_the_machines(tree: Tree) -> None:
    assert tree.look() == Memory(12 * GIB, 16 * GIB, "")


@pytest.mark.parametrize("limited", ["", "system.slice", "system.slice/daq.service"])
def test_each_group_around_the_process_limits_it_in_version_2(tree: Tree, limited: str) -> None:
    tree.mount(tree.mounted, version=2)
    tree.belongs("0::/system.slice/daq.service\n")
    for name in ("", "system.slice", "system.slice/daq.service"):
        tree.group(name, memory_max=3 * GIB if name == limited else "max", memory_current=GIB)
    assert tree.look() == Memory(2 * GIB, 3 * GIB, str(tree.mounted / limited))


@pytest.mark.parametrize("limited", ["", "batch", "batch/job_7"])
def test_each_group_around_the_process_limits_it_in_version_1(tree: Tree, limited: str) -> None:
    mounted = tree.mounted / "mem"
    tree.mount(tree.mounted / "cpu", version=1, options="rw,cpu,cpuacct")
    tree.mount(mounted, version=1, options="rw,memory")
    tree.belongs("11:cpu,cpuacct:/other\n4:name=systemd:/x\n3:memory:/batch/job_7\n0::/\n")
    for name in ("", "batch", "batch/job_7"):
        limit = 3 * GIB if name == limited else 2**63 - 4096
        tree.group(f"mem/{name}", memory_limit_in_bytes=limit, memory_usage_in_bytes=GIB)
    assert tree.look() == Memory(2 * GIB, 3 * GIB, str(mounted / limited))


def test_the_least_of_all_limits_counts_and_so_does_the_least_that_is_free(tree: Tree) -> None:
    """They may be two groups: the inner one has less, the outer one is fuller."""
    tree.mount(tree.mounted, version=2)
    tree.belongs("0::/outer/inner\n")
    outer = tree.group("outer", memory_max=8 * GIB, memory_current=7 * GIB)
    tree.group("outer/inner", memory_max=4 * GIB, memory_current=GIB)
    assert tree.look() == Memory(GIB, 4 * GIB, str(outer))


def test_a_machine_with_both_versions_is_limited_by_both(tree: Tree) -> None:
    tree.mount(tree.mounted / "memory", version=1)
    tree.mount(tree.mounted / "unified", version=2)
    tree.belongs("3:memory:/a\n0::/b\n")
    tree.group("memory/a", memory_limit_in_bytes=4 * GIB, memory_usage_in_bytes=GIB)
    b = tree.group("unified/b", memory_max=2 * GIB, memory_current=GIB)
    assert tree.look() == Memory(GIB, 2 * GIB, str(b))


def test_a_container_with_a_namespace_sees_its_group_as_the_root(tree: Tree) -> None:
    tree.mount(tree.mounted, version=2)
    tree.belongs("0::/\n")
    tree.group("", memory_max=2 * GIB, memory_current=GIB)
    assert tree.look() == Memory(GIB, 2 * GIB, str(tree.mounted))


@pytest.mark.parametrize("path", ["/docker/abc", "/", "/../other"])
def test_a_container_is_limited_however_its_group_is_named(tree: Tree, path: str) -> None:
    """The mount shows the container's group alone; its path is told from outside, inside, or beside it."""
    tree.mount(tree.mounted, version=1, root="/docker/abc")
    tree.belongs(f"5:memory:{path}\n")
    tree.group("", memory_limit_in_bytes=2 * GIB, memory_usage_in_bytes=GIB)
    assert tree.look() == Memory(GIB, 2 * GIB, str(tree.mounted))


def test_a_group_inside_a_container_is_found_below_the_containers(tree: Tree) -> None:
    tree.mount(tree.mounted, version=1, root="/docker/abc")
    tree.belongs("5:memory:/docker/abc/inner\n")
    tree.group("", memory_limit_in_bytes=8 * GIB, memory_usage_in_bytes=GIB)
    inner = tree.group("inner", memory_limit_in_bytes=2 * GIB, memory_usage_in_bytes=GIB)
    assert tree.look() == Memory(GIB, 2 * GIB, str(inner))


def test_the_limit_of_a_group_that_is_hidden_is_told_by_version_1(tree: Tree) -> None:
    tree.mount(tree.mounted, version=1)
    tree.belongs("5:memory:/\n")
    tree.group(
        "",
        memory_limit_in_bytes=2**63 - 4096,
        memory_usage_in_bytes=GIB,
        memory_stat=f"cache 5\nhierarchical_memory_limit {3 * GIB}",
    )
    assert tree.look() == Memory(2 * GIB, 3 * GIB, str(tree.mounted))


def test_page_cache_is_not_used_memory(tree: Tree) -> None:
    """But the ring's own pages are, which the kernel counts to the cache, too."""
    tree.mount(tree.mounted, version=2)
    tree.belongs("0::/\n")
    cached = f"anon 1\nfile {2 * GIB}\nshmem {GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 2}"
    tree.group("", memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=cached)
    assert tree.look().free_bytes == 2 * GIB


def test_what_slows_a_unit_down_is_a_limit_too(tree: Tree) -> None:
    """MemoryHigh= of systemd: above it all processes of the unit are throttled."""
    tree.mount(tree.mounted, version=2)
    tree.belongs("0::/\n")
    tree.group("", memory_max=4 * GIB, memory_high=2 * GIB, memory_current=GIB)
    assert tree.look() == Memory(GIB, 2 * GIB, str(tree.mounted))


@pytest.mark.parametrize("lines", ["", "x", "0::", "::\n:::", "0::/gone/away\n", "3:memory:/\n"])
def test_groups_that_are_told_in_another_form_do_not_limit(tree: Tree, lines: str) -> None:
    tree.mount(tree.mounted, version=2)
    tree.belongs(lines)
    assert tree.look() == Memory(12 * GIB, 16 * GIB, "")


def test_the_reserve_is_a_tenth_of_the_least_limit_but_never_too_little_for_our_processes() -> None:
    assert Memory(GIB, 100 * GIB).reserve_bytes == 10 * GIB
    assert Memory(GIB, 600 * MIB).reserve_bytes == LEAST_RESERVE == 256 * MIB


# -- the ring -------------------------------------------------------------------------------


def ring_bytes(free: int, limit: int, *, returned: int = 0, **changes: object) -> int:
    config = DaqConfig.parse(EXAMPLE | changes)
    return choose_ring(config, Memory(free, limit, "/the/group"), returned_bytes=returned).total_bytes


def test_a_ring_that_is_chosen_leaves_the_reserve_to_others() -> None:
    assert ring_bytes(100 * GIB, 200 * GIB, ram_buffer_gb=0) < 1.01 * GIB
    assert ring_bytes(2 * GIB, 4 * GIB, ram_buffer_gb=0) <= GIB / 2
    assert ring_bytes(300 * MIB, 600 * MIB, ram_buffer_gb=0) <= 44 * MIB


@pytest.mark.parametrize(
    ("free", "limit", "ram_buffer_gb"),
    [(23 * GIB, 24 * GIB, 25), (23 * GIB, 24 * GIB, 21), (550 * MIB, 600 * MIB, 0.3), (GIB, 4 * GIB, 4000)],
)
def test_a_ring_that_leaves_too_little_is_refused_with_whose_limit_it_is(
    free: int, limit: int, ram_buffer_gb: float
) -> None:
    with pytest.raises(Unavailable, match=r"control group /the/group.* ram_buffer_gb .* at most"):
        ring_bytes(free, limit, ram_buffer_gb=ram_buffer_gb)


def test_what_a_refusal_says_fits_does_fit() -> None:
    with pytest.raises(Unavailable) as refused:
        ring_bytes(23 * GIB, 24 * GIB, ram_buffer_gb=4000)
    fitting = float(str(refused.value).split(" at most")[0].rsplit(" ", 1)[1])
    assert 20 < fitting < 21
    assert ring_bytes(23 * GIB, 24 * GIB, ram_buffer_gb=fitting) > 20 * GIB


def test_a_ring_no_larger_than_the_one_it_replaces_is_never_refused() -> None:
    now = ring_bytes(23 * GIB, 24 * GIB, ram_buffer_gb=8)
    assert ring_bytes(0, 24 * GIB, returned=now, ram_buffer_gb=8) == now
    with pytest.raises(Unavailable):
        ring_bytes(0, 24 * GIB, returned=now, ram_buffer_gb=8.1)


def test_where_not_even_the_smallest_ring_fits_nobody_is_told_to_make_it_smaller() -> None:
    with pytest.raises(Unavailable, match="give the service more memory") as refused:
        ring_bytes(260 * MIB, 600 * MIB, ram_buffer_gb=0)
    assert "260 MiB free" in str(refused.value)  # and not 0.3 of something larger


def test_the_doctor_goes_by_the_same_limit() -> None:
    config = DaqConfig.parse(EXAMPLE | {"ram_buffer_gb": 1})
    assert room_for_ring(config, Memory(8 * GIB, 16 * GIB)).verdict == "good"
    found = room_for_ring(config, Memory(GIB, 2 * GIB, "/the/group"))
    assert found.verdict == "problem"
    assert "/the/group" in found.text
    assert "ram_buffer_gb=0.75" in found.cure


# -- a real group ---------------------------------------------------------------------------


@pytest.fixture
def real_group() -> Iterator[Path]:
    with control_group(600 * MIB) as group:
        yield group


def test_a_process_in_a_real_group_sees_its_limit(real_group: Path) -> None:
    look = (
        "from daq_core.linux.memory import present_memory; "
        "found = present_memory(); print(found.free_bytes, found.limit_bytes, found.group)"
    )
    done = subprocess.run(
        inside(real_group, sys.executable, "-c", look),
        capture_output=True,
        text=True,
        check=True,
    )
    free, limit, group = done.stdout.split()
    assert (int(limit), group) == (600 * MIB, str(real_group))
    assert 100 * MIB < int(free) < 600 * MIB
