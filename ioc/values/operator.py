"""What an operator sees beside the DAQ's own state: what was put, what came of it, how the service is.

Immutable, replaced whole, like all that the PVs show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setpoints:
    """The write request that the next start uses, and how many log entries LogJson_RBV lists."""

    output_file: str | None = None  # None until somebody sets it
    n_images: int = 1
    run_id: str = ""  # "": a new one is made
    log_n: int = 10


@dataclass(frozen=True)
class LastCommand:
    """The result of the last command, and the commands that are active now."""

    status: str = "Idle"  # Idle, Running, OK, Rejected, Failed, Timeout
    message: str = ""
    name: str = ""
    user: str = ""  # user@host as the client claims them
    accepted: int = 0  # since start
    rejected: int = 0
    duration_s: float = 0.0
    active: frozenset[str] = frozenset()  # names of PVs that read 1


@dataclass(frozen=True)
class FaceHealth:
    """What the program around the IOC knows of its other faces; None: there is no Redis to connect to."""

    redis_connected: bool | None = None
    redis_latency_s: float | None = None
    last_error: str = ""
    errors: int = 0


@dataclass(frozen=True)
class IocHealth:
    """What the Channel Access face counts of itself since its start."""

    version: str = ""
    started: float = 0.0  # Unix seconds
    engineer: str = ""
    location: str = ""
    heartbeat: int = 0
    loop_lag_s: float = 0.0  # the longest of the last second
    n_clients: int = 0
    n_channels: int = 0
    n_records: int = 0
    n_dropped: int = 0  # updates, for slow clients
    n_stalled: int = 0  # clients that do not read at present
    updates_per_second: float = 0.0
    errors: int = 0
    last_error: str = ""


@dataclass(frozen=True)
class SaveState:
    """What the PVs ``SR_…`` and START_CNT show."""

    status: Literal["OK", "Warning", "Error"] = "OK"
    text: str = ""
    last_save: float | None = None  # Unix seconds; None: never
    n_starts: int = 1  # of the service, this one included
