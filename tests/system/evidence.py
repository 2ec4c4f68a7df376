"""What is known of a run from outside: what was sent, what the faces said, what the file holds.

The harness of ``tests.torture`` collects it, ``tests.system.checker`` judges it.
Nothing here is of the receiver or the writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin  # noqa: F401  compressed files are read with it
import numpy as np
import numpy.typing as npt

COLUMNS = ("image_id", "status", "missing_packets", "timestamp")


class Sent(NamedTuple):
    """One datagram that went out, in the order of sending."""

    from_s: float  # monotonic: it went out between
    until_s: float  # these two
    image: int  # which of the sender's images it is of, jumps of the frame number left out
    port: int  # counted from the config's first
    is_foreign: bool  # from an address whose packets the service does not take
    data: bytes


class Look(NamedTuple):
    """What a reader saw during a run: the count first, then the file."""

    n_completed: int
    n_visible: int


@dataclass(frozen=True)
class Images:
    """The contents of a file: n images, and what it says of itself.

    pixels : (n, H, W); columns : name → (n,); the lengths are those of the datasets
    """

    pixels: npt.NDArray[Any]
    columns: Mapping[str, npt.NDArray[Any]]
    state: str
    message: str
    counters: Mapping[str, int]

    @classmethod
    def read(cls, path: str | Path) -> Images:
        with h5py.File(path) as file:
            data, run = file["entry/data"], file["entry/run"]
            return cls(
                pixels=data["data"][:],
                columns={name: data[name][:] for name in COLUMNS},
                state=run["state"].asstr()[()],
                message=run["message"].asstr()[()],
                counters={name: int(count[()]) for name, count in run["counters"].items()},
            )

    @classmethod
    def of_parts(cls, paths: Sequence[str | Path]) -> Images:
        """Read the files of several writers of a FAILED run over which no file could be made."""
        parts = [cls.read(path) for path in paths]
        return cls(
            pixels=np.concatenate([part.pixels for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS},
            state="FAILED",
            message="",
            counters=parts[0].counters,
        )


@dataclass(frozen=True)
class Counters:
    """The receiver's counters since the service began, as Channel Access shows them."""

    received: int = 0
    placed: int = 0
    duplicate: int = 0
    late: int = 0
    foreign: int = 0
    malformed: int = 0
    unplaced: int = 0
    kernel_drops: int = 0
    restarts: int = 0  # times that a detector was armed again


@dataclass(frozen=True)
class End:
    """How one face shows the end of a run."""

    state: str
    acquisition: str
    message: str
    output_file: str
    n_images: int
    n_completed: int
    n_incomplete: int = 0
    n_missing_packets: int = 0
    n_dropped: int = 0


@dataclass(frozen=True)
class RunEvidence:
    """One accepted run."""

    name: str  # of the run in the table and in what is said of it
    output_file: str
    n_images: int
    run_id: int
    ends: Mapping[str, End]  # by face: REST, CA, Redis
    file: Images | None  # None: there is none, or nobody can read it
    sent: Sequence[Sent] = ()
    armed_s: float = 0.0  # monotonic: WAITING_IMAGES was seen
    stopped_s: float | None = None  # a stop was asked for, or the run was broken off
    looks: Sequence[Look] = ()
    before: Counters | None = None  # None: the service was not there, or another one
    after: Counters | None = None
    losses: Mapping[str, int] = field(default_factory=dict)  # of this run, by the names in the file
    receiver_lost: bool = False  # the receiver, or the whole service, was killed meanwhile
    is_perfect: bool = False  # nothing was done to it: 8 demands that nothing is missing
    stop_took_s: float | None = None  # from Stop to READY after it


@dataclass(frozen=True)
class Owned:
    """Something in the folders of the service, or beside them."""

    path: str
    uid: int
    digest: str


@dataclass(frozen=True)
class Evidence:
    """Everything of one service."""

    config: Mapping[str, Any]
    runs: Sequence[RunEvidence]
    accepted: Sequence[tuple[str, int]]  # output_file and run_id of each request that was accepted
    refused: Sequence[str]  # output files of those that were not
    journal: Sequence[Mapping[str, Any]]  # ended acquisitions, in its order
    logs: Sequence[Mapping[str, Any]]  # of REST, newest first
    redis_log: Sequence[Mapping[str, Any]] | None  # None: Redis was away in between, and may have lost some
    owner: int
    parts: Sequence[str] = ()  # files that go with those of accepted requests: of several writers
    files: Sequence[Owned] = ()  # in the allowed root, at the end
    outside_before: Sequence[Owned] = ()
    outside_after: Sequence[Owned] = ()
    finished: Sequence[Owned] = ()  # each file of a run, right after its end
