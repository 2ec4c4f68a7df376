"""What this process and its machine are and use, as iocStats counts it: processors, memory, descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

Precedence = Literal["real-time", "nice", "normal"]
"""How the control process goes before the data path."""


def _folder() -> str:
    """Return the folder the process was started in; "" when it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


CHANNEL_ACCESS = f"caproto {version('caproto')}"  # read from a file, 0.2 ms: once


@dataclass(frozen=True)
class Machine:
    """What does not change while the process lives."""

    kernel: str = field(default_factory=lambda: "{0.sysname} {0.release} {0.machine}".format(os.uname()))
    host: str = field(default_factory=lambda: os.uname().nodename)
    n_cpus: int | None = field(default_factory=os.cpu_count)
    process_id: int = field(default_factory=os.getpid)
    folder: str = field(default_factory=_folder)  # it was started in; "": gone
    channel_access: str = CHANNEL_ACCESS


@dataclass(frozen=True)
class Usage:
    """What is used at one instant; None: not known (yet)."""

    system_cpu_percent: float | None = None  # of all processors, since the look before
    ioc_cpu_percent: float | None = None  # of this process, of one processor: at 100 its loop is full
    ioc_bytes: int | None = None  # of this process, in memory
    free_bytes: int | None = None  # that programs could still get, of the machine and of each control group
    total_bytes: int | None = None  # of the machine, or what the smallest control group may have
    n_descriptors: int | None = None
    max_descriptors: int | None = None
    parent_id: int | None = None
    precedence: Precedence | None = None  # over the data path

    @property
    def free_descriptors(self) -> int | None:
        if self.n_descriptors is None or self.max_descriptors is None:
            return None
        return self.max_descriptors - self.n_descriptors
