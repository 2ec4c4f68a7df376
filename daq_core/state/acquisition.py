"""The state machine of an acquisition: one pure table, ``step(status, event, now) -> status``.

It does no I/O and reads no clock, so every order of events can be tried in a
test. What each situation shows is the table below; ``docs/reference/states.md``
is drawn from ``TABLE`` and compared with it in a test.

=================================  =========  ==================================
situation                          state      acquisition
=================================  =========  ==================================
start accepted, file not open      WRITING    still the one before
file open, no image yet            WRITING    WAITING_IMAGES
images arriving, none on disk      WRITING    ACQUIRING_IMAGES
some on disk, more to come         WRITING    WRITING
all acquired, or stopped           WRITING    FLUSHING_IMAGES
file closed cleanly                READY      FINISHED "Completed."/"Interrupted."
open, write or close failed        READY      FAILED "ERROR: …"
writer or receiver lost            UNKNOWN    FAILED "ERROR: …" if one was running
a new config is taken up           UNKNOWN    still the one before
=================================  =========  ==================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any

from daq_core.errors import Busy
from daq_core.state.events import (
    AllAcquired,
    ConfigAccepted,
    Event,
    FileClosed,
    FileOpened,
    ImageAcquired,
    ImagesWritten,
    OpenFailed,
    PipelineReady,
    ReceiverLost,
    StartRequested,
    StopRequested,
    WriteFailed,
    WriterLost,
)
from daq_core.state.status import Acquisition, AcquisitionState, DaqState, DaqStatus

COMPLETED = "Completed."
INTERRUPTED = "Interrupted."


class Phase(StrEnum):
    """The situations an event can meet."""

    READY = "READY"
    OPENING = "OPENING"
    WAITING = "WAITING_IMAGES"
    ACQUIRING = "ACQUIRING_IMAGES"
    WRITING = "WRITING"
    FLUSHING = "FLUSHING_IMAGES"
    UNKNOWN = "UNKNOWN"


def phase(status: DaqStatus) -> Phase:
    """Tell which situation a status shows."""
    if status.state is DaqState.READY:
        return Phase.READY
    if status.state is DaqState.UNKNOWN:
        return Phase.UNKNOWN
    if status.pending is not None:
        return Phase.OPENING
    return Phase(status.acquisition.state.value)


def _accept(status: DaqStatus, event: StartRequested, now: float) -> DaqStatus:
    return replace(status, state=DaqState.WRITING, pending=event.request, pending_since=now, stopping=False)


def _open(status: DaqStatus, event: FileOpened, now: float) -> DaqStatus:
    state = AcquisitionState.FLUSHING_IMAGES if status.stopping else AcquisitionState.WAITING_IMAGES
    acquisition = Acquisition(state, "", status.pending, start_time=status.pending_since)
    return replace(status, acquisition=acquisition, pending=None, pending_since=None)


def _acquire(status: DaqStatus, event: ImageAcquired, now: float) -> DaqStatus:
    if status.acquisition.state is not AcquisitionState.WAITING_IMAGES:
        return status
    n_requested = max(1, status.acquisition.n_write_requested)
    return _with_acquisition(status, state=AcquisitionState.ACQUIRING_IMAGES, n_write_requested=n_requested)


def _count(status: DaqStatus, event: ImagesWritten, now: float) -> DaqStatus:
    before = status.acquisition
    n_requested = max(before.n_write_requested, event.n_requested)
    n_completed = max(before.n_write_completed, min(event.n_completed, n_requested))
    state = before.state
    if state is not AcquisitionState.FLUSHING_IMAGES and n_requested > 0:
        state = AcquisitionState.WRITING if n_completed > 0 else AcquisitionState.ACQUIRING_IMAGES
    return _with_acquisition(
        status, state=state, n_write_requested=n_requested, n_write_completed=n_completed
    )


def _flush(status: DaqStatus, event: AllAcquired, now: float) -> DaqStatus:
    return _with_acquisition(status, state=AcquisitionState.FLUSHING_IMAGES)


def _stop_opening(status: DaqStatus, event: StopRequested, now: float) -> DaqStatus:
    return replace(status, stopping=True)


def _stop_running(status: DaqStatus, event: StopRequested, now: float) -> DaqStatus:
    return replace(_flush(status, AllAcquired(), now), stopping=True)


def _stop_unknown(status: DaqStatus, event: StopRequested, now: float) -> DaqStatus:
    """Only a receiver that is down keeps Stop from ending in READY; PipelineReady then does it."""
    return status if status.receiver_down else _ready(status)


def _finish(status: DaqStatus, event: FileClosed, now: float) -> DaqStatus:
    request = status.acquisition.request
    complete = (request is not None and 0 < request.n_images == event.n_completed) or event.saw_last_id
    ended = replace(
        status.acquisition,
        state=AcquisitionState.FINISHED,
        message=COMPLETED if complete else INTERRUPTED,
        n_write_requested=max(status.acquisition.n_write_requested, event.n_completed),
        n_write_completed=event.n_completed,
        stop_time=now,
    )
    return replace(_ready(status), acquisition=ended)


def _close_late(status: DaqStatus, event: FileClosed, now: float) -> DaqStatus:
    """The receiver was lost first: the run has failed already, its file still closes in order."""
    if status.acquisition.state is not AcquisitionState.FAILED:
        return status
    n_requested = max(status.acquisition.n_write_requested, event.n_completed)
    return _with_acquisition(
        status, n_write_requested=n_requested, n_write_completed=event.n_completed, stop_time=now
    )


def _fail(status: DaqStatus, event: WriteFailed, now: float) -> DaqStatus:
    n_requested = max(status.acquisition.n_write_requested, event.n_completed)
    counted = _count(status, ImagesWritten(n_requested, event.n_completed), now)
    return _ready(_failed(counted, event.reason, now))


def _fail_late(status: DaqStatus, event: WriteFailed, now: float) -> DaqStatus:
    """The receiver was lost first, and that is why the run failed; its images in memory reached the file."""
    return _close_late(status, FileClosed(event.n_completed), now)


def _fail_open(status: DaqStatus, event: OpenFailed, now: float) -> DaqStatus:
    return _ready(_failed(status, event.reason, now))


def _lose_writer(status: DaqStatus, event: WriterLost, now: float) -> DaqStatus:
    failed = _failed(status, f"writer lost: {event.reason}", now)
    return replace(failed, state=DaqState.UNKNOWN, reason=f"writer lost: {event.reason}")


def _lose_receiver(status: DaqStatus, event: ReceiverLost, now: float) -> DaqStatus:
    failed = _failed(status, f"receiver lost: {event.reason}", now)
    return replace(
        failed, state=DaqState.UNKNOWN, receiver_down=True, reason=f"receiver lost: {event.reason}"
    )


def _reconfigure(status: DaqStatus, event: ConfigAccepted, now: float) -> DaqStatus:
    return replace(status, state=DaqState.UNKNOWN, receiver_down=True, reason="a new config is taken up")


def _recover(status: DaqStatus, event: PipelineReady, now: float) -> DaqStatus:
    return replace(_ready(status), receiver_down=False)


def _keep(status: DaqStatus, event: Event, now: float) -> DaqStatus:
    return status


def _ready(status: DaqStatus) -> DaqStatus:
    return replace(status, state=DaqState.READY, pending=None, pending_since=None, stopping=False, reason="")


def _failed(status: DaqStatus, reason: str, now: float) -> DaqStatus:
    """End the pending or running acquisition as FAILED; an ended one stays as it is."""
    if status.pending is not None:
        acquisition = Acquisition(request=status.pending, start_time=status.pending_since)
    elif status.acquisition.running:
        acquisition = status.acquisition
    else:
        return replace(status, stopping=False)
    acquisition = replace(
        acquisition, state=AcquisitionState.FAILED, message=f"ERROR: {reason}", stop_time=now
    )
    return replace(status, acquisition=acquisition, pending=None, pending_since=None, stopping=False)


def _with_acquisition(status: DaqStatus, **changes: Any) -> DaqStatus:
    return replace(status, acquisition=replace(status.acquisition, **changes))


Arrows = dict[type, Callable[[DaqStatus, Any, float], DaqStatus]]

_RUNNING: Arrows = {
    ImageAcquired: _acquire,
    ImagesWritten: _count,
    AllAcquired: _flush,
    StopRequested: _stop_running,
    FileClosed: _finish,
    WriteFailed: _fail,
    WriterLost: _lose_writer,
    ReceiverLost: _lose_receiver,
}

TABLE: dict[Phase, Arrows] = {
    Phase.READY: {
        StartRequested: _accept,
        StopRequested: _keep,
        ConfigAccepted: _reconfigure,
        ReceiverLost: _lose_receiver,
        PipelineReady: _keep,
    },
    Phase.OPENING: {
        FileOpened: _open,
        OpenFailed: _fail_open,
        StopRequested: _stop_opening,
        WriterLost: _lose_writer,
        ReceiverLost: _lose_receiver,
    },
    Phase.WAITING: _RUNNING,
    Phase.ACQUIRING: _RUNNING,
    Phase.WRITING: _RUNNING,
    Phase.FLUSHING: _RUNNING,
    Phase.UNKNOWN: {
        StopRequested: _stop_unknown,
        FileClosed: _close_late,
        WriteFailed: _fail_late,
        WriterLost: _lose_writer,
        ConfigAccepted: _reconfigure,
        ReceiverLost: _lose_receiver,
        PipelineReady: _recover,
    },
}


def step(status: DaqStatus, event: Event, now: float) -> DaqStatus:
    """Return the status after an event.

    Parameters
    ----------
    now : float
        Unix seconds at which the event happened.

    Raises
    ------
    Busy
        The event is not legal in this situation; nothing changed.
    """
    row = TABLE[phase(status)]
    act = row.get(type(event))
    if act is None:
        raise Busy(refusal(status, event))
    return act(status, event, now)


def refusal(status: DaqStatus, event: Event) -> str:
    """Say why an event is not legal now, for the person who sent the command."""
    match status.state, event:
        case DaqState.UNKNOWN, StartRequested():
            return f"The DAQ is not ready ({status.reason or 'state UNKNOWN'}). Stop resets it."
        case DaqState.WRITING, StartRequested():
            run = status.pending or status.acquisition.request
            where = f" into {run.output_file}" if run is not None else ""
            return f"A run{where} is going on. Wait until it ends, or stop it."
        case DaqState.WRITING, ConfigAccepted():
            return "The config cannot be changed while a run is going on. Stop it first."
        case _:
            return f"{type(event).__name__} is not legal in {phase(status)}."
