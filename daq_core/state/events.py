"""What can happen to an acquisition: what people ask for, and what images, files and processes do.

The table of ``daq_core.state.acquisition`` says where each of them leads.
"""

from __future__ import annotations

from dataclasses import dataclass

from daq_core.state.status import WriteRequest


@dataclass(frozen=True)
class StartRequested:
    """A valid write request was accepted."""

    request: WriteRequest


@dataclass(frozen=True)
class FileOpened:
    """The file exists and the writer waits for images."""


@dataclass(frozen=True)
class OpenFailed:
    """The file could not be created."""

    reason: str


@dataclass(frozen=True)
class ImageAcquired:
    """The first image of the run is in memory."""


@dataclass(frozen=True)
class ImagesWritten:
    """The counts moved: `n_requested` in memory, `n_completed` of them visible to a reader."""

    n_requested: int
    n_completed: int


@dataclass(frozen=True)
class AllAcquired:
    """The last image the run asked for is in memory."""


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the run to end; legal in every situation."""


@dataclass(frozen=True)
class FileClosed:
    """The file closed without an error and holds `n_completed` images."""

    n_completed: int
    saw_last_id: bool = False  # the run was to end with an image id, and that came


@dataclass(frozen=True)
class WriteFailed:
    """A write or the close failed; a reader can see `n_completed` images."""

    reason: str
    n_completed: int


@dataclass(frozen=True)
class WriterLost:
    """The writer process is gone, or did not answer and was killed."""

    reason: str


@dataclass(frozen=True)
class ReceiverLost:
    """The receiver process is gone."""

    reason: str


@dataclass(frozen=True)
class ConfigAccepted:
    """Another config was accepted: the receiver is about to be replaced."""


@dataclass(frozen=True)
class PipelineReady:
    """Receiver and writer work (again)."""


Event = (
    StartRequested
    | FileOpened
    | OpenFailed
    | ImageAcquired
    | ImagesWritten
    | AllAcquired
    | StopRequested
    | FileClosed
    | WriteFailed
    | WriterLost
    | ReceiverLost
    | ConfigAccepted
    | PipelineReady
)
