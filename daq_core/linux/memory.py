"""How much memory this process may still have: the machine's, and what each of its control groups allows.

A container, a systemd unit (``MemoryMax=``) and a batch job are control groups, one inside the
other; the kernel kills in the one that is full first, whatever /proc/meminfo says. Version 1 and
version 2 are read, and both at once, as many machines have them.

Source: cgroups(7), proc_pid_mountinfo(5), and the kernel's admin-guide/cgroup-v1/memory.rst and
admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

LEAST_RESERVE = 256 * 2**20
"""Bytes that no ring may take: what our processes, Redis and the page cache need at least."""


@dataclass(frozen=True)
class Memory:
    """What may be had of memory at one instant."""

    free_bytes: int  # the least of what the machine and each control group can still give
    limit_bytes: int  # the least of what the machine has and each control group may have
    group: str = ""  # the control group that gives the least; "": the machine does

    @property
    def reserve_bytes(self) -> int:
        """What is left to everything else: the larger of 256 MiB and a tenth of the least limit."""
        return max(LEAST_RESERVE, self.limit_bytes // 10)

    def __str__(self) -> str:
        free = f"{shown_bytes(self.free_bytes)} free"
        return f"{free} (limit of the control group {self.group})" if self.group else free


@dataclass(frozen=True)
class ControlGroup:
    """A folder of a memory control group that this process is in."""

    folder: Path
    version: int
    is_outermost: bool = False  # as far as we can see: a container does not see those around it

    def limit(self) -> int | None:
        """Return the bytes that it may have; None: no limit of its own."""
        if self.version == 2:  # above "high" all its processes are slowed down until they stand still
            return min(_numbers(self.folder, "memory.max", "memory.high"), default=None)
        limits = list(_numbers(self.folder, "memory.limit_in_bytes"))
        if self.is_outermost:  # says the limit of those outside, too
            limits.append(_statistics(self.folder).get("hierarchical_memory_limit", 2**63))
        return min(limits, default=None)

    def used(self) -> int:
        """Return the bytes that it has, without the page cache, which the kernel takes back first."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        used = next(_numbers(self.folder, name), 0)
        known = _statistics(self.folder)
        prefix = "" if self.version == 2 else "total_"
        cached = known.get(prefix + "inactive_file", 0) + known.get(prefix + "active_file", 0)
        return max(0, used - cached)


def present_memory(groups: tuple[ControlGroup, ...] | None = None) -> Memory:
    """Look at the machine and at all control groups; `groups` saves looking for them again.

    Raises
    ------
    OSError, ValueError, LookupError
        /proc has no meminfo, or it has another form.
    """
    machine = psutil.virtual_memory()
    least = Memory(int(machine.available), int(machine.total))
    for group in memory_groups() if groups is None else groups:
        limit = group.limit()
        if limit is None:
            continue
        free = max(0, limit - group.used())
        least = Memory(
            min(free, least.free_bytes),
            min(limit, least.limit_bytes),
            str(group.folder) if free < least.free_bytes else least.group,
        )
    return least


def memory_groups() -> tuple[ControlGroup, ...]:
    """Return the control groups of this process that count memory, from its own to the outermost."""
    proc = Path(psutil.PROCFS_PATH)
    try:
        memberships = (proc / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ()
    found: list[ControlGroup] = []
    for line in memberships.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found += _up_from(path, list(_mounts(mounts, version=2)), version=2)
        elif "memory" in controllers.split(","):
            found += _up_from(path, list(_mounts(mounts, version=1)), version=1)
    return tuple(found)


def shown_bytes(n_bytes: int) -> str:
    """Return a size for people: in GiB, below one in MiB."""
    if n_bytes >= 2**30:
        return f"{n_bytes / 2**30:.1f} GiB"
    return f"{n_bytes / 2**20:.0f} MiB"


def _mounts(mountinfo: str, version: int) -> Iterator[tuple[str, Path]]:
    """Yield which group is shown where: the root of each mount in its hierarchy, and its mount point."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        is_v1 = kind[0] == "cgroup" and "memory" in kind[2].split(",")
        if is_v1 if version == 1 else kind[0] == "cgroup2":
            yield _unescaped(fields[3]), Path(_unescaped(fields[4]))


def _up_from(path: str, mounts: list[tuple[str, Path]], version: int) -> list[ControlGroup]:
    """Return a group and those around it, as far as one of the mounts shows them."""
    for root, point in sorted(mounts, key=lambda mount: len(mount[0])):  # the one that shows most
        folder = _below(point, root, path)
        if folder is None:
            continue
        around = [folder, *folder.parents]
        shown = [group for group in around if group.is_relative_to(point)]
        return [ControlGroup(group, version, is_outermost=group == point) for group in shown]
    return []


def _below(point: Path, root: str, path: str) -> Path | None:
    """Return the folder of a group under a mount; None where the mount does not show it.

    In a container without a namespace of its own for control groups, the mount's root is the
    container's group, and the path begins with it. In a namespace the path is told as from its
    root, "/" for the container, whatever the mount's root is called; "/.." leads out of it.
    """
    own = PurePosixPath("/", path)
    if ".." in own.parts or ".." in PurePosixPath(root).parts:
        return point if point.is_dir() else None
    inner = own.relative_to(root) if own.is_relative_to(root) else own.relative_to("/")
    folder = point / inner
    if folder.is_dir():
        return folder
    return point if point.is_dir() else None


def _unescaped(text: str) -> str:
    """Return a field of mountinfo with its blanks: they are written as in C, ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def _numbers(folder: Path, *names: str) -> Iterator[int]:
    """Yield the numbers in files of a group; one that is missing, or says "max", is left out."""
    for name in names:
        try:
            yield int((folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue


def _statistics(folder: Path) -> dict[str, int]:
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    except (OSError, ValueError):
        return {}
