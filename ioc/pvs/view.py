"""What the PVs can show: one immutable value made of the DAQ's snapshot and what clients have put.

A row's ``value`` in ``ioc.pvs.daq`` is a function of a :class:`View`; here are the
derived quantities that need more than one attribute to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from daq_core.config import DaqConfig
from daq_core.detectors import Layout
from daq_core.state.losses import Losses
from daq_core.state.status import (
    Acquisition,
    Counters,
    DaqStats,
    DaqStatus,
    Deployment,
    Snapshot,
    WriteRequest,
)
from ioc.access.rules import AccessRules
from ioc.values.area import Area
from ioc.values.machine import Machine, Usage
from ioc.values.operator import FaceHealth, IocHealth, LastCommand, SaveState, Setpoints
from ioc.values.staging import Staging

MAX_JSON_BYTES = 65535  # a text of nelm bytes keeps one for its end
NOTHING_STAGED = Staging()


@dataclass(frozen=True)
class StdDaqJson:
    """How std_daq's objects look as JSON; given by the composition root, for
    ``rest_bridge.models`` alone knows the wire's key names."""

    status: Callable[[DaqStatus], object]
    stats: Callable[[DaqStats], object]
    acquisition: Callable[[Acquisition], object]
    deployment: Callable[[Deployment], Any]


@dataclass(frozen=True)
class View:
    """Everything a PV may show, at one instant."""

    snapshot: Snapshot
    layout: Layout  # of the snapshot's config: it takes a while to work out
    next: Setpoints = field(default_factory=Setpoints)  # what the next start uses
    staging: Staging = field(default_factory=Staging)
    command: LastCommand = field(default_factory=LastCommand)
    area: Area = field(default_factory=Area)
    access: AccessRules = field(default_factory=AccessRules)
    earlier: Counters = field(default_factory=Counters)  # some seconds ago: to see what rises
    face: FaceHealth = field(default_factory=FaceHealth)
    ioc: IocHealth = field(default_factory=IocHealth)
    machine: Machine = field(default_factory=Machine)
    usage: Usage = field(default_factory=Usage)
    saves: SaveState | None = None  # None: settings are not saved
    std_daq: StdDaqJson | None = None
    now: float = 0.0  # Unix seconds, at most a second old

    @property
    def status(self) -> DaqStatus:
        return self.snapshot.status

    @property
    def run(self) -> Acquisition:
        """The present or the last acquisition."""
        return self.snapshot.status.acquisition

    @property
    def request(self) -> WriteRequest | None:
        """What the present or the last acquisition was asked for; None before the first."""
        return self.run.request

    @property
    def config(self) -> DaqConfig:
        return self.snapshot.config

    @property
    def stats(self) -> DaqStats:
        return self.snapshot.stats

    @property
    def losses(self) -> Losses:
        return self.snapshot.losses

    @property
    def counters(self) -> Counters:
        return self.snapshot.counters

    @property
    def deployment(self) -> Deployment:
        return self.snapshot.deployment

    @cached_property
    def staged(self) -> dict[str, Any]:
        """The config as ConfigApply would make it."""
        return self.staging.shown(self.config)

    @property
    def staged_json(self) -> str:
        return json.dumps(self.staged)

    @property
    def pending(self) -> bool:
        """Whether ConfigApply would change anything."""
        return self.staging.pending(self.config)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.staging.ids_shown(self.config)

    @property
    def corners(self) -> tuple[int, ...]:
        return self.staging.corners_shown(self.config)

    @property
    def ids_in_use(self) -> tuple[int, ...]:
        return NOTHING_STAGED.ids_shown(self.config)

    @property
    def corners_in_use(self) -> tuple[int, ...]:
        return NOTHING_STAGED.corners_shown(self.config)

    @property
    def acquisition_state(self) -> str:
        return self.run.state.value if self.request is not None else "NONE"

    @property
    def n_images(self) -> int:
        """Images the present or last run asked for; 0 before the first run."""
        return self.request.n_images if self.request else 0

    @property
    def elapsed_s(self) -> float:
        """Seconds the present run takes so far, or the last one took."""
        run = self.run
        if run.start_time is None:
            return 0.0
        end = self.now if run.running or run.stop_time is None else run.stop_time
        return max(0.0, end - run.start_time)

    @property
    def progress_percent(self) -> float:
        return 100 * self.run.n_write_completed / self.n_images if self.n_images else 0.0

    @property
    def n_images_missing(self) -> int:
        """Images that an ended run asked for and did not get; 0 while it runs."""
        return 0 if self.run.running else max(0, self.n_images - self.run.n_write_completed)

    @property
    def age_s(self) -> float:
        """Seconds since the newest snapshot, to a tenth."""
        return round(max(0.0, self.now - self.snapshot.time), 1)

    @property
    def disk_free_gb(self) -> float | None:
        free = self.snapshot.health.disk_free_bytes
        return None if free is None else free / 1e9

    @property
    def redis_latency_ms(self) -> float | None:
        return None if self.face.redis_latency_s is None else 1e3 * self.face.redis_latency_s

    @property
    def ring_percent(self) -> float:
        return self._percent_of_ring(self.counters.ring_used)

    @property
    def ring_peak_percent(self) -> float:
        return self._percent_of_ring(self.counters.ring_high_water)

    def _percent_of_ring(self, n_slots: int) -> float:
        return 100 * n_slots / self.counters.ring_slots if self.counters.ring_slots else 0.0

    @property
    def write_latency_ms(self) -> float:
        return 1e3 * self.counters.write_latency_s

    @property
    def last_image_id(self) -> str:
        return shown(self.counters.last_image_id)

    @property
    def silent_modules(self) -> str:
        return ", ".join(map(str, self.losses.silent_modules))

    def log(self, n: int) -> Acquisition | None:
        """Return the n-th newest ended acquisition, the newest being 1."""
        return self.snapshot.log[n - 1] if n <= len(self.snapshot.log) else None

    @cached_property
    def logs_json(self) -> tuple[int, str] | None:
        """List the last LogN acquisitions as JSON, with their number; fewer when they would not fit."""
        if self.std_daq is None:
            return None
        runs = self.snapshot.log[: self.next.log_n]
        entries = [json.dumps(self.std_daq.acquisition(run)) for run in runs]
        while sum(len(entry.encode()) + 2 for entry in entries) > MAX_JSON_BYTES - 2:
            entries.pop()
        return len(entries), "[" + ", ".join(entries) + "]"

    def json(self, wire: Callable[[StdDaqJson], object]) -> str | None:
        """Return one of std_daq's objects as text, or None where nobody knows its form."""
        return None if self.std_daq is None else json.dumps(wire(self.std_daq))

    @property
    def servers_json(self) -> str | None:
        """Servers of the last deployment as JSON, with std_daq's names."""
        return self.json(lambda wire: wire.deployment(self.deployment)["servers"])


def iso(unix_s: float | None) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond, or "" for none."""
    if unix_s is None:
        return ""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return a time span as iocStats writes it: ``3 days, 04:05:06``."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return (f"{days} days, " if days != 1 else "1 day, ") * bool(days) + f"{h:02}:{m:02}:{s:02}"


def shown(value: object) -> str:
    """Return a value as text, "" for none."""
    return "" if value is None else str(value)
