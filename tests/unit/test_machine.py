"""What the IOC tells of its process and machine is what the kernel says; the rest it does not know."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from ioc.service.watch import Watch
from ioc.values.machine import Machine, Usage

MEMINFO = "MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n" + "".join(
    f"{name}: 0 kB\n" for name in ("Buffers", "Cached", "Active", "Inactive", "Shmem", "Slab", "SReclaimable")
)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of a machine whose processors did nothing yet; nothing of processes is in it."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text(MEMINFO)
    ticks(tmp_path, busy=0, idle=0)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def watch(proc: Path) -> Watch:
    return Watch()


def ticks(proc: Path, *, busy: int, idle: int) -> None:
    """Write what the processors did since the machine started: half of the idle time waits for disks."""
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle // 2} {idle - idle // 2} 0 0 0 0 0\ncpu0 1 2 3\n")


def test_the_load_of_the_processors_is_that_since_the_look_before(watch: Watch, proc: Path) -> None:
    assert watch.look().system_cpu_percent is None
    ticks(proc, busy=25, idle=75)
    assert watch.look().system_cpu_percent == pytest.approx(25)
    ticks(proc, busy=125, idle=75)
    assert watch.look().system_cpu_percent == pytest.approx(100)


def test_memory_is_that_of_proc(watch: Watch) -> None:
    usage = watch.look()
    assert (usage.total_bytes, usage.free_bytes) == (16000 * 1024, 4000 * 1024)


def test_memory_is_that_of_the_smallest_control_group(proc: Path, tmp_path: Path) -> None:
    (group := tmp_path / "group").mkdir()
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("1000000\n")
    (proc / "self/cgroup").write_text("0::/\n")
    (proc / "self/mountinfo").write_text(f"31 23 0:28 / {group} rw - cgroup2 cgroup2 rw\n")
    usage = Watch().look()
    assert (usage.total_bytes, usage.free_bytes) == (3_000_000, 2_000_000)


def test_what_proc_does_not_tell_is_not_known(watch: Watch, proc: Path) -> None:
    for name in ("stat", "meminfo"):
        (proc / name).unlink()
    usage = watch.look()
    assert usage == Usage(
        max_descriptors=usage.max_descriptors, parent_id=os.getppid(), precedence=usage.precedence
    )


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c d", "\0"])
def test_a_proc_of_another_form_is_not_known(watch: Watch, proc: Path, text: str) -> None:
    for name in ("stat", "meminfo"):
        (proc / name).write_text(text)
    usage = watch.look()
    assert (usage.system_cpu_percent, usage.ioc_bytes, usage.total_bytes) == (None, None, None)


def test_the_real_process_is_seen() -> None:
    watch = Watch()
    before = watch.look()
    assert before.n_descriptors is not None
    files = [open(os.devnull) for _ in range(7)]  # noqa: SIM115  they are to stay open
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    now = watch.look()
    for file in files:
        file.close()
    assert now.n_descriptors == before.n_descriptors + 7
    assert before.n_descriptors == len(os.listdir("/proc/self/fd")) - 1  # one of them is this look
    assert now.ioc_cpu_percent is not None
    assert now.ioc_cpu_percent > 0
    assert now.ioc_bytes is not None
    assert now.total_bytes is not None
    assert 10e6 < now.ioc_bytes < now.total_bytes
    assert now.system_cpu_percent is not None
    assert 0 <= now.system_cpu_percent <= 100
    assert Machine().process_id == os.getpid()


def test_a_folder_that_is_gone_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Machine().folder == ""
