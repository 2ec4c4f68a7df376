"""What the DAQ says of itself: immutable values, replaced whole.

A :class:`Snapshot` is the only thing a face needs: it is rendered as PVs, as
REST answers and as Redis entries, and no face keeps a state of its own.
Names follow std_daq where it has one (``n_write_completed``); the wire's key
names and JSON shapes live in ``rest_bridge.models`` alone.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from daq_core.errors import InvalidRequest
from daq_core.state.losses import NO_LOSSES, Losses

if TYPE_CHECKING:
    from daq_core.config import DaqConfig

MAX_N_IMAGES = 2**31 - 1
MAX_PATH_BYTES = 1023
MAX_PART_BYTES = 255
MAX_RUN_ID_CHARACTERS = 256
MAX_IMAGE_ID = 2**64 - 2


class DaqState(StrEnum):
    """Whether a write request can be accepted now."""

    READY = "READY"
    WRITING = "WRITING"
    UNKNOWN = "UNKNOWN"


class AcquisitionState(StrEnum):
    """Where the present or the last acquisition stands (table in the docs, ``states.md``)."""

    WAITING_IMAGES = "WAITING_IMAGES"
    ACQUIRING_IMAGES = "ACQUIRING_IMAGES"
    WRITING = "WRITING"
    FLUSHING_IMAGES = "FLUSHING_IMAGES"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


def checked_output_file(value: object) -> str:
    """Return an output path that is legal as text, or raise InvalidRequest.

    The rules need no file system: absolute, no ``..``, no NUL or control
    character, each part at most 255 bytes and the whole at most 1023 (UTF-8).
    """
    if value is None:
        raise InvalidRequest("Mandatory field missing: output_file")
    if not isinstance(value, str) or not value.startswith("/"):
        raise InvalidRequest(f'Invalid output_file={value}. Path must be absolute - starts with "/".')
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise InvalidRequest(f"Invalid output_file={value!r}. It contains a control character.")
    try:
        parts = value.encode().split(b"/")
    except UnicodeEncodeError:
        raise InvalidRequest(f"Invalid output_file={value!r}. It is not valid Unicode text.") from None
    if b".." in parts:
        raise InvalidRequest(f"Invalid output_file={value}. Path must not contain '..'.")
    if value.endswith("/") or parts[-1] == b".":
        raise InvalidRequest(f"Invalid output_file={value}. Path must name a file, not a folder.")
    if max(map(len, parts)) > MAX_PART_BYTES or len(value.encode()) > MAX_PATH_BYTES:
        raise InvalidRequest(
            f"Invalid output_file={value}. A path may have {MAX_PATH_BYTES} bytes, "
            f"and {MAX_PART_BYTES} in each of its parts."
        )
    return value


def checked_n_images(value: object) -> int:
    """Return a legal number of images, 1 … 2³¹−1, from ``10``, ``10.0`` or ``"10"``."""
    if value is None:
        raise InvalidRequest("Mandatory field missing: n_images")
    number: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        try:
            number = int(value.strip(), 10)
        except ValueError:
            number = None
    if number is None or (isinstance(number, float) and not number.is_integer()):
        raise InvalidRequest(f"Cannot convert n_images={value} to an integer. Must be an integer >= 1.")
    if number < 1:
        raise InvalidRequest(f"Invalid n_images={value}. Must be an integer >= 1.")
    if number > MAX_N_IMAGES:
        raise InvalidRequest(f"Invalid n_images={value}. Must be at most {MAX_N_IMAGES}.")
    return int(number)


def checked_run_id(value: object) -> int | str:
    """Return a legal run id: an integer within ±2⁶³, or 1 … 256 printable characters."""
    if value is None:
        return time.time_ns()
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, str) and 1 <= len(value) <= MAX_RUN_ID_CHARACTERS and value.isprintable():
        return value
    raise InvalidRequest(
        f"Invalid run_id={value!r}. Must be an integer of 64 bits or a text of 1 to "
        f"{MAX_RUN_ID_CHARACTERS} printable characters."
    )


def checked_ids(start_id: object, end_id: object) -> tuple[int, int | None]:
    """Return the first and the last image id of a run, 0 … 2⁶⁴−2; None: no first, no last one."""
    for name, value in (("start_id", start_id), ("end_id", end_id)):
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= MAX_IMAGE_ID):  # type: ignore[operator]
            raise InvalidRequest(f"Invalid {name}={value!r}. Must be an integer from 0 to 2^64-2.")
    first = start_id if isinstance(start_id, int) else 0
    last = end_id if isinstance(end_id, int) else None
    if last is not None and last < first:
        raise InvalidRequest(f"Invalid end_id={last}. It must not be below start_id={first}.")
    return first, last


@dataclass(frozen=True)
class WriteRequest:
    """What a user asks for: a file, a number of images, a name for the run.

    Of images outside start_id … end_id none is in the run. One with end_id or above ends it:
    several machines, each with its part of a detector, so begin and end with the same image.
    """

    output_file: str
    n_images: int
    run_id: int | str
    start_id: int = 0
    end_id: int | None = None

    @classmethod
    def checked(
        cls,
        output_file: object,
        n_images: object,
        run_id: object = None,
        start_id: object = None,
        end_id: object = None,
    ) -> WriteRequest:
        """Make a request from whatever a face received; InvalidRequest says what is wrong."""
        return cls(
            checked_output_file(output_file),
            checked_n_images(n_images),
            checked_run_id(run_id),
            *checked_ids(start_id, end_id),
        )

    @property
    def folder(self) -> str:
        return os.path.dirname(self.output_file)


@dataclass(frozen=True)
class Acquisition:
    """The present or the last run; before the first one, ``request`` and the times are None."""

    state: AcquisitionState = AcquisitionState.FINISHED
    message: str = ""
    request: WriteRequest | None = None
    n_write_requested: int = 0  # images handed to the writer
    n_write_completed: int = 0  # images a reader of the file can see
    start_time: float | None = None  # Unix seconds
    stop_time: float | None = None
    losses: Losses | None = NO_LOSSES  # None: nobody knows, as of a run whose service was killed

    @property
    def running(self) -> bool:
        return self.state not in (AcquisitionState.FINISHED, AcquisitionState.FAILED)

    @property
    def efficiency(self) -> float | None:
        """Good images as a part of those that were asked for, where that is known and the run FINISHED;
        else of those that were acquired. None where nothing was acquired, or the losses are not known."""
        if self.losses is None or self.request is None:
            return None
        n_good = (self.n_write_requested if self.running else self.n_write_completed) - (
            self.losses.not_good_images
        )
        n_wanted = self.n_write_requested + self.losses.dropped_images - self.losses.given_up_images
        is_number_known = self.request.n_images > 0 and self.request.end_id is None
        if self.state is AcquisitionState.FINISHED and is_number_known:
            n_wanted = self.request.n_images
        return min(1.0, max(0, n_good) / n_wanted) if n_wanted > 0 else None


@dataclass(frozen=True)
class DaqStatus:
    """State of the DAQ and its acquisition.

    ``pending`` is the accepted request whose file is not open yet: until it
    is, ``acquisition`` still is the one before.
    """

    state: DaqState = DaqState.UNKNOWN
    acquisition: Acquisition = field(default_factory=Acquisition)
    pending: WriteRequest | None = None
    pending_since: float | None = None  # Unix seconds, with `pending`
    stopping: bool = False  # a stop is asked for and not done yet
    receiver_down: bool = True  # the state is UNKNOWN while it is
    reason: str = "starting"  # why the state is UNKNOWN; "" otherwise


@dataclass(frozen=True)
class Rate:
    """Throughput over the last full second."""

    bytes_per_second: float = 0.0  # of uncompressed images
    images_per_second: float = 0.0


@dataclass(frozen=True)
class DaqStats:
    """What the detector delivers and what the writer stores, refreshed at 1 Hz."""

    detector: Rate = field(default_factory=Rate)
    writer: Rate = field(default_factory=Rate)


@dataclass(frozen=True)
class Counters:
    """Everything the receiver counted since it was started, and the state of its ring."""

    packets_received: int = 0
    packets_placed: int = 0
    packets_duplicate: int = 0
    packets_late: int = 0
    packets_foreign: int = 0
    packets_malformed: int = 0
    packets_dropped: int = 0  # well-formed, but their image found no free slot
    kernel_drops: int = 0
    kernel_drops_by_port: tuple[int, ...] = ()  # in the order of the UDP ports
    socket_used_percent: float = 0.0  # of the fullest port's buffer
    socket_peak_percent: float = 0.0  # the same, the most that was seen in this run
    images_published: int = 0
    missing_packets: int = 0
    incomplete_images: int = 0
    dropped_images: int = 0
    id_restarts: int = 0
    ring_slots: int = 0
    ring_used: int = 0
    ring_high_water: int = 0  # slots, this run
    socket_buffer_bytes: int = 0  # per port, as the kernel granted it
    last_image_id: int | None = None
    last_image_time: float | None = None  # of its first packet, Unix seconds
    write_latency_s: float = 0.0  # newest image: first packet to disk


@dataclass(frozen=True)
class Deployment:
    """How the last config change went; std_daq shows it per server, here there is one."""

    config_id: str | None = None
    status: str = "UNKNOWN"  # UNKNOWN, RUNNING, SUCCESS, ERROR
    message: str = "No config available"
    start_time: float | None = None
    stop_time: float | None = None


@dataclass(frozen=True)
class Health:
    """State of the DAQ's parts, for PVs and log lines."""

    receiver_up: bool = False
    restarts: int = 0  # receivers started again, and writers lost, since start
    disk_free_bytes: int | None = None  # where the run is or would be written
    warning: str = ""  # e.g. a socket buffer smaller than asked for
    low_space: str = ""  # part of it: the present or last run leaves little free space
    config: str = ""  # part of it: the config in use is not the wanted one, or is not kept for the next start
    waiting: str = ""  # part of it: what the run waits for, when no image has come for some seconds


@dataclass(frozen=True)
class Snapshot:
    """Everything there is to show, at one instant."""

    time: float  # Unix seconds when this snapshot became true
    config: DaqConfig
    config_id: str  # "<ms>-<n>", as a Redis stream would name it
    ran: DaqConfig | None = None  # the last config that came up: the next start shall have it
    status: DaqStatus = field(default_factory=DaqStatus)
    stats: DaqStats = field(default_factory=DaqStats)
    counters: Counters = field(default_factory=Counters)
    deployment: Deployment = field(default_factory=Deployment)
    health: Health = field(default_factory=Health)
    log: tuple[Acquisition, ...] = ()  # ended acquisitions, newest first, FAILED ones too
    log_total: int = 0  # ended acquisitions since the journal began

    @property
    def losses(self) -> Losses:
        """What the present or last run lost, as far as anybody knows."""
        return self.status.acquisition.losses or NO_LOSSES
