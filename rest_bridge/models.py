"""std_daq's JSON objects, made from core values: the only place with std_daq's wire key names.

Each class is one object on the wire, documents it for the OpenAPI page, and has
an ``of`` that makes it from what :mod:`daq_core.state.status` says. Redis entries and
REST answers are the same objects.

Source of keys and messages: the README of ``std_daq_client`` 1.3.5, and answers
of the original servers of the same generation.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from daq_core.config import DaqConfig
from daq_core.detectors import FORMATS
from daq_core.state import status as core

RUN_EXAMPLE = 1684930336122153839
SERVER_STATES = {"SUCCESS": "Done", "RUNNING": "Deploying", "ERROR": "Error"}


class StdDaqForm(BaseModel):
    """A value on the wire, in the order of its fields."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    def as_json(self) -> bytes:
        return to_json(self.model_dump())


def to_json(value: object) -> bytes:
    """Return UTF-8 JSON; half a surrogate pair, which UTF-8 cannot hold, becomes its JSON escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


class WriteBody(StdDaqForm):
    """What `write_async` and `write_sync` are asked for. Other keys are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"output_file": "/tmp/scan_0001.h5", "n_images": 100}}
    )

    output_file: str
    """Absolute path of the file to make. Its folder must exist, the file must not."""
    n_images: int | str = Field(json_schema_extra={"minimum": 1, "maximum": core.MAX_N_IMAGES})
    """Number of images to write; a number in text, as `"100"`, is accepted."""
    run_id: int | str | None = None
    """Name of the run, echoed as given; by default the time of the request in nanoseconds."""


def write_request(body: Mapping[str, object]) -> core.WriteRequest:
    """Make the core's request from a JSON object; InvalidRequest says what is wrong with it."""
    return core.WriteRequest.checked(body.get("output_file"), body.get("n_images"), body.get("run_id"))


def config_changes_schema() -> dict[str, Any]:
    """Return the JSON schema of a config change: the detector config with no key required."""
    schema = DaqConfig.model_json_schema()
    schema.pop("required")
    schema["properties"]["detector_type"]["enum"] = list(FORMATS)
    return schema | {
        "title": "ConfigChanges",
        "description": "The keys of the std_daq detector JSON that are to change.",
        "example": {"bit_depth": 16, "writer_user_id": 12345},
    }


class Info(StdDaqForm):
    """The request that made an acquisition; before the first one, 0 and nulls."""

    n_images: int = Field(0, examples=[100])
    """Images asked for; 0 is an open-ended run (Channel Access only)."""
    output_file: str | None = Field(None, examples=["/tmp/scan_0001.h5"])
    """Absolute path of the file."""
    run_id: int | str | None = Field(None, examples=[RUN_EXAMPLE])
    """The run's name, as it was given."""

    @classmethod
    def of(cls, request: core.WriteRequest | None) -> Info:
        if request is None:
            return cls()
        return cls(n_images=request.n_images, output_file=request.output_file, run_id=request.run_id)


class Counts(StdDaqForm):
    """How far an acquisition has come."""

    n_write_completed: int = Field(examples=[100])
    """Images that a reader of the file can see."""
    n_write_requested: int = Field(examples=[100])
    """Images handed to the writer."""
    start_time: float | None = Field(examples=[1684930336.1252322])
    """Unix seconds when the run was accepted."""
    stop_time: float | None = Field(examples=[1684930345.2723851])
    """Unix seconds when it ended; null while it runs."""
    n_incomplete: int | None = Field(examples=[0])
    """Images that lack packets. As all that follows: null where nobody knows, and none of std_daq's keys."""
    n_sparse: int | None = Field(examples=[0])
    """Those of them that have less than half of their packets."""
    n_missing_packets: int | None = Field(examples=[0])
    """Packets that the images handed to the writer lack."""
    n_dropped: int | None = Field(examples=[0])
    """Images that are not in the file: no free slot in memory, incomplete and not wanted, or given up."""
    n_mismatched: int | None = Field(examples=[0])
    """Images whose modules disagree on the id."""
    n_other_format: int | None = Field(examples=[0])
    """Images in another format than the config's."""
    n_invalid_pixels: int | None = Field(examples=[0])
    """Pixels of a converted Jungfrau in a gain stage that does not exist."""
    silent_modules: list[int] | None = Field(examples=[[]])
    """Numbers of the modules that sent nothing while others did."""
    efficiency: float | None = Field(examples=[1.0])
    """Good images as a part, 0 to 1, of those asked for when the run FINISHED and their number was known,
    else of those acquired; null when none was acquired."""

    @classmethod
    def of(cls, acquisition: core.Acquisition) -> Counts:
        lost = acquisition.losses
        return cls(
            n_write_completed=acquisition.n_write_completed,
            n_write_requested=acquisition.n_write_requested,
            start_time=acquisition.start_time,
            stop_time=acquisition.stop_time,
            n_incomplete=lost and lost.incomplete_images,
            n_sparse=lost and lost.sparse_images,
            n_missing_packets=lost and lost.missing_packets,
            n_dropped=lost and lost.dropped_images,
            n_mismatched=lost and lost.mismatched_images,
            n_other_format=lost and lost.other_format_images,
            n_invalid_pixels=lost and lost.invalid_pixels,
            silent_modules=None if lost is None else list(lost.silent_modules),
            efficiency=acquisition.efficiency,
        )


class Acquisition(StdDaqForm):
    """The acquisition going on, or the last one."""

    state: Literal["WAITING_IMAGES", "ACQUIRING_IMAGES", "WRITING", "FLUSHING_IMAGES", "FINISHED", "FAILED"]
    message: str = Field(examples=["Completed."])
    """Empty while running, then `Completed.`, `Interrupted.` or `ERROR: …`."""
    info: Info
    stats: Counts

    @classmethod
    def of(cls, acquisition: core.Acquisition) -> Acquisition:
        return cls(
            state=acquisition.state.value,
            message=acquisition.message,
            info=Info.of(acquisition.request),
            stats=Counts.of(acquisition),
        )


class LogEntry(Acquisition):
    """An acquisition that ended."""

    reports: list[dict[str, Any]] = []
    """Always empty; the original's web page reads its length."""


def ended(log: tuple[core.Acquisition, ...]) -> list[LogEntry]:
    """Return the log with all acquisitions, FAILED ones too, in its order."""
    return [LogEntry(**dict(Acquisition.of(acquisition))) for acquisition in log]


def finished(log: tuple[core.Acquisition, ...]) -> list[LogEntry]:
    """Return the log as std_daq keeps it: same order, without the acquisitions that failed."""
    return ended(tuple(run for run in log if run.state is core.AcquisitionState.FINISHED))


class WriterStatus(StdDaqForm):
    """State of the DAQ and of its present or last acquisition."""

    state: Literal["READY", "WRITING", "UNKNOWN"]
    """Only in READY is a new run accepted; from UNKNOWN a stop resets."""
    acquisition: Acquisition

    @classmethod
    def of(cls, status: core.DaqStatus) -> WriterStatus:
        return cls(state=status.state.value, acquisition=Acquisition.of(status.acquisition))


class Throughput(StdDaqForm):
    """Rates over the last full second."""

    bytes_per_second: float
    """Of uncompressed images."""
    images_per_second: float

    @classmethod
    def of(cls, rate: core.Rate) -> Throughput:
        return cls(bytes_per_second=rate.bytes_per_second, images_per_second=rate.images_per_second)


class Stats(StdDaqForm):
    """Throughput, refreshed once a second."""

    detector: Throughput
    """Images assembled from the detector's packets."""
    writer: Throughput
    """Images written to the file."""

    @classmethod
    def of(cls, stats: core.DaqStats) -> Stats:
        return cls(detector=Throughput.of(stats.detector), writer=Throughput.of(stats.writer))


class DeploymentTimes(StdDaqForm):
    """When a config change was accepted and when it was in effect."""

    start_time: float = Field(examples=[1685090990.182])
    """Unix seconds, the time in the config id."""
    stop_time: float = Field(examples=[1685090990.347])
    """Unix seconds; 0 while the change is under way."""


class Deployment(StdDaqForm):
    """How the last config change went."""

    config_id: str | None = Field(examples=["1685090990182-0"])
    """The id of that config: its time in milliseconds, and a number."""
    status: Literal["UNKNOWN", "RUNNING", "SUCCESS", "ERROR"]
    message: str = Field(examples=["Deployment successful"])
    servers: dict[str, str] | None = Field(examples=[{"xbl-daq-28": "Done"}])
    """This machine and how far it is: `Deploying`, `Done` or `Error`."""
    stats: DeploymentTimes | None

    @classmethod
    def of(cls, deployment: core.Deployment) -> Deployment:
        config_id, state = deployment.config_id, SERVER_STATES.get(deployment.status)
        times = None
        if config_id is not None:
            times = DeploymentTimes(
                start_time=float(config_id.replace("-", ".")) / 1000, stop_time=deployment.stop_time or 0.0
            )
        return cls(
            config_id=config_id,
            status=deployment.status,
            message=deployment.message,
            servers=None if config_id is None else {socket.gethostname(): state} if state else {},
            stats=times,
        )


class Reply(StdDaqForm):
    """What every answer has; `status` tells whether it worked. HTTP's own status is 200."""

    status: Literal["ok", "error"]
    message: str


class Success(Reply):
    """A request that was carried out."""

    status: Literal["ok"] = "ok"


class ErrorReply(Reply):
    """A request that was refused, or went wrong; `message` says why and what to do."""

    status: Literal["error"] = "error"
    message: str = Field(examples=["Mandatory field missing: n_images"])


class WriterReply(Success):
    """The answer to whatever concerns the writer."""

    writer: WriterStatus


class StatusReply(WriterReply):
    """The state of the DAQ, and what a person should look at; `warning` and `waiting` are not std_daq's."""

    warning: str = Field(examples=[""])
    """What the service warns of although it works, in sentences; empty when there is nothing."""
    waiting: str = Field(examples=["no packet on UDP 50100 for 5 s: is the detector armed?"])
    """The part of it that says what a run waits for when no image has come for 5 s."""


class ConfigReply(Success):
    """The detector config."""

    config: dict[str, Any]
    """The std_daq detector JSON, whole."""
    config_id: str | None = Field(examples=["1685090990182-0"])
    """The id of this config; its entry in the Redis stream `daq:config` has the same."""


class NewConfigReply(Success):
    """The config that results from a change."""

    config: dict[str, Any]
    """The std_daq detector JSON, whole, with the change in it."""


class StatsReply(Success):
    """The throughput."""

    stats: Stats


class LogsReply(Success):
    """Acquisitions that ended with a file, newest first."""

    logs: list[LogEntry]


class RunsReply(Success):
    """All acquisitions that ended, newest first, FAILED ones too."""

    runs: list[LogEntry]


class DeploymentReply(Success):
    """The state of the last config change."""

    deployment: Deployment
