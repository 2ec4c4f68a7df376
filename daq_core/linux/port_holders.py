"""Which program holds a UDP port, as far as /proc tells: its name and process, or at least its user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from daq_core.linux.user import user_name

PROC = Path("/proc")
LOCAL, UID, INODE = 1, 7, 9  # columns of /proc/net/udp, see proc_net(5)


def holder_of(port: int, proc: Path = PROC) -> str:
    """Return who holds a UDP port: "python3 (process 4711)", "a program of user daq", or "": not seen."""
    holders = dict(_sockets(port, proc))
    for process in filter(str.isdecimal, os.listdir(proc)):
        if _open_sockets(proc / process) & holders.keys():
            with suppress(OSError):
                name = (proc / process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{name} (process {process})"
    return next((f"a program of user {user_name(uid)}" for uid in holders.values()), "")


def _sockets(port: int, proc: Path) -> Iterator[tuple[str, int]]:
    """Yield inode and user of each socket that is bound to a port; one of IPv6 may hold it as well."""
    for table in ("net/udp", "net/udp6"):
        try:
            lines = (proc / table).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for line in lines:
            words = line.split()
            if len(words) > INODE and words[LOCAL].endswith(f":{port:04X}"):
                yield words[INODE], int(words[UID])


def _open_sockets(process: Path) -> set[str]:
    """Return the inodes of a process's sockets; of other users' processes only root sees them."""
    found = set()
    with suppress(OSError):
        for descriptor in os.scandir(process / "fd"):
            with suppress(OSError):
                target = os.readlink(descriptor.path)
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found
