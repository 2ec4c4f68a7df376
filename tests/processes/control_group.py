"""A control group with little memory, for tests of what a service does in a container of that size."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daq_core.linux.memory import memory_groups
from tests.machine.judges import absent


@contextmanager
def control_group(limit_bytes: int) -> Iterator[Path]:
    """Make a group that processes can be put into; skips the test where that is not possible."""
    outermost = next((group for group in memory_groups() if group.is_outermost), None)
    if os.geteuid() != 0 or outermost is None:
        absent("cgroups", "only root may make one")
    folder = outermost.folder / f"std-daq-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if outermost.version == 1 else "memory.max"
    try:
        folder.mkdir()
    except OSError as error:
        absent("cgroups", f"none can be made in {outermost.folder}: {error.strerror}")
    try:
        if not (folder / limit).exists():
            absent("cgroups", f"those in {outermost.folder} do not count memory (see cgroup.subtree_control)")
        (folder / limit).write_text(str(limit_bytes))
        yield folder
    finally:
        deadline = time.monotonic() + 30
        while folder.exists() and time.monotonic() < deadline:  # busy until its last process is gone
            with suppress(OSError):
                folder.rmdir()
            time.sleep(0.01)


def inside(group: Path, *command: str) -> list[str]:
    """Return the command that runs another one in a group."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]


def n_killed(group: Path) -> int:
    """Return how many processes of a group the kernel has killed for their memory."""
    events = group / "memory.events"
    lines = (events if events.exists() else group / "memory.oom_control").read_text().splitlines()
    return int(next((line.split()[1] for line in lines if line.startswith("oom_kill ")), 0))
