"""Each situation shows what the reference page says, and each event leads where it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daq_core.errors import Busy
from daq_core.state.acquisition import TABLE, Phase, phase, step
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
from daq_core.state.status import AcquisitionState, DaqState, DaqStatus, WriteRequest

FIRST = WriteRequest("/data/first.h5", 2, 1)
SECOND = WriteRequest("/data/second.h5", 10, 2)


def after(*events: Event, status: DaqStatus | None = None) -> DaqStatus:
    """Return the status after events that happened at 1000 s, 1001 s, …"""
    status = status or DaqStatus()
    for now, event in enumerate(events, 1000):
        status = step(status, event, float(now))
    return status


START = StartRequested(SECOND)
TO_READY = (PipelineReady(), StartRequested(FIRST), FileOpened(), ImagesWritten(2, 2), FileClosed(2))
TO_WAITING = (*TO_READY, START, FileOpened())
TO_ACQUIRING = (*TO_WAITING, ImageAcquired())
TO_WRITING = (*TO_ACQUIRING, ImagesWritten(3, 1))

SITUATIONS = [
    pytest.param((), "UNKNOWN", "FINISHED", "", id="service just started"),
    pytest.param((PipelineReady(),), "READY", "FINISHED", "", id="never run"),
    pytest.param((*TO_READY, START), "WRITING", "FINISHED", "Completed.", id="start accepted, file not open"),
    pytest.param(TO_WAITING, "WRITING", "WAITING_IMAGES", "", id="file open, no image"),
    pytest.param(TO_ACQUIRING, "WRITING", "ACQUIRING_IMAGES", "", id="images arriving, none on disk"),
    pytest.param(
        (*TO_WAITING, ImagesWritten(2, 0)), "WRITING", "ACQUIRING_IMAGES", "", id="two, none on disk"
    ),
    pytest.param(TO_WRITING, "WRITING", "WRITING", "", id="one on disk, more to come"),
    pytest.param((*TO_WRITING, AllAcquired()), "WRITING", "FLUSHING_IMAGES", "", id="all acquired"),
    pytest.param((*TO_WRITING, StopRequested()), "WRITING", "FLUSHING_IMAGES", "", id="stopped"),
    pytest.param(
        (*TO_WAITING, StopRequested()), "WRITING", "FLUSHING_IMAGES", "", id="stopped without an image"
    ),
    pytest.param((*TO_WRITING, FileClosed(10)), "READY", "FINISHED", "Completed.", id="closed, all there"),
    pytest.param((*TO_WRITING, FileClosed(3)), "READY", "FINISHED", "Interrupted.", id="closed, some there"),
    pytest.param((*TO_WAITING, FileClosed(0)), "READY", "FINISHED", "Interrupted.", id="closed, none there"),
    pytest.param((*TO_READY, START, OpenFailed("no")), "READY", "FAILED", "ERROR: no", id="not opened"),
    pytest.param((*TO_WRITING, WriteFailed("full", 1)), "READY", "FAILED", "ERROR: full", id="disk full"),
    pytest.param(
        (*TO_WRITING, WriterLost("9")), "UNKNOWN", "FAILED", "ERROR: writer lost: 9", id="writer lost"
    ),
    pytest.param(
        (*TO_READY, START, WriterLost("9")),
        "UNKNOWN",
        "FAILED",
        "ERROR: writer lost: 9",
        id="lost while opening",
    ),
    pytest.param(
        (*TO_WRITING, ReceiverLost("9")), "UNKNOWN", "FAILED", "ERROR: receiver lost: 9", id="receiver lost"
    ),
    pytest.param(
        (*TO_READY, ReceiverLost("9")), "UNKNOWN", "FINISHED", "Completed.", id="receiver lost, idle"
    ),
    pytest.param((*TO_READY, ConfigAccepted()), "UNKNOWN", "FINISHED", "Completed.", id="new config"),
    pytest.param(
        (*TO_WRITING, WriterLost("9"), StopRequested()), "READY", "FAILED", "ERROR: writer lost: 9", id="stop"
    ),
    pytest.param(
        (*TO_WRITING, ReceiverLost("9"), StopRequested()),
        "UNKNOWN",
        "FAILED",
        "ERROR: receiver lost: 9",
        id="stop without a receiver",
    ),
    pytest.param(
        (*TO_WRITING, ReceiverLost("9"), PipelineReady()),
        "READY",
        "FAILED",
        "ERROR: receiver lost: 9",
        id="receiver restarted",
    ),
]


@pytest.mark.parametrize(("events", "state", "acquisition", "message"), SITUATIONS)
def test_a_situation_shows(events: tuple[Event, ...], state: str, acquisition: str, message: str) -> None:
    status = after(*events)
    assert (status.state, status.acquisition.state, status.acquisition.message) == (
        state,
        acquisition,
        message,
    )


def test_until_the_file_is_open_the_acquisition_is_the_one_before() -> None:
    before, opening = after(*TO_READY), after(*TO_READY, START)
    assert opening.acquisition == before.acquisition
    assert opening.pending == SECOND
    assert after(*TO_READY, START, FileOpened()).acquisition.request == SECOND


def test_start_time_is_when_the_request_was_accepted_and_stop_time_when_the_file_closed() -> None:
    acquisition = after(*TO_READY, START, FileOpened(), FileClosed(0)).acquisition
    assert (acquisition.start_time, acquisition.stop_time) == (1005.0, 1007.0)


@pytest.mark.parametrize("failure", [OpenFailed("no"), WriterLost("no"), ReceiverLost("no")])
def test_a_run_that_failed_to_open_shows_its_own_request_and_no_images(failure: Event) -> None:
    acquisition = after(*TO_READY, START, failure).acquisition
    assert acquisition.request == SECOND
    assert (acquisition.n_write_requested, acquisition.n_write_completed) == (0, 0)
    assert (acquisition.start_time, acquisition.stop_time) == (1005.0, 1006.0)


@pytest.mark.parametrize("state", Phase)
def test_stop_is_legal_in_every_situation(state: Phase) -> None:
    assert StopRequested in TABLE[state]


def test_a_stop_while_the_file_is_being_opened_is_not_forgotten() -> None:
    status = after(*TO_READY, START, StopRequested(), FileOpened())
    assert status.acquisition.state is AcquisitionState.FLUSHING_IMAGES
    assert status.stopping
    assert not after(FileClosed(0), status=status).stopping


def test_stop_of_an_idle_daq_changes_nothing() -> None:
    status = after(*TO_READY)
    assert step(status, StopRequested(), 2000.0) == status


@pytest.mark.parametrize("events", [(*TO_READY, START), TO_WAITING, TO_ACQUIRING, TO_WRITING])
def test_a_second_start_is_refused_with_the_file_of_the_first(events: tuple[Event, ...]) -> None:
    with pytest.raises(
        Busy, match=r"A run into /data/second\.h5 is going on\. Wait until it ends, or stop it\."
    ):
        after(*events, StartRequested(FIRST))


def test_a_start_is_refused_while_unknown_with_the_reason_and_the_cure() -> None:
    with pytest.raises(Busy, match=r"not ready \(writer lost: killed\)\. Stop resets it\."):
        after(*TO_WRITING, WriterLost("killed"), StartRequested(FIRST))


@pytest.mark.parametrize("events", [(*TO_READY, START), TO_WAITING, TO_WRITING])
def test_a_new_config_is_refused_while_a_run_is_going_on(events: tuple[Event, ...]) -> None:
    with pytest.raises(Busy, match="config cannot be changed while a run is going on"):
        after(*events, ConfigAccepted())


def test_counts_never_go_back_and_never_show_more_on_disk_than_in_memory() -> None:
    status = after(*TO_WAITING, ImagesWritten(5, 3), ImagesWritten(4, 9))
    assert (status.acquisition.n_write_requested, status.acquisition.n_write_completed) == (5, 5)


def test_a_failed_write_shows_the_images_that_a_reader_can_see() -> None:
    acquisition = after(*TO_WRITING, WriteFailed("full", 2)).acquisition
    assert (acquisition.n_write_requested, acquisition.n_write_completed) == (3, 2)
    assert after(*TO_WAITING, WriteFailed("full", 4)).acquisition.n_write_completed == 4


def test_a_file_that_closes_after_the_receiver_was_lost_tells_how_much_it_holds() -> None:
    status = after(*TO_WRITING, ReceiverLost("killed"), FileClosed(3))
    assert status.state is DaqState.UNKNOWN
    assert status.acquisition.state is AcquisitionState.FAILED
    assert status.acquisition.n_write_completed == 3


def test_a_close_that_nobody_waits_for_does_not_change_a_finished_run() -> None:
    status = after(*TO_READY, ConfigAccepted())
    assert step(status, FileClosed(1), 2000.0) == status


def test_an_endless_run_that_is_stopped_is_interrupted() -> None:
    endless = StartRequested(replace(SECOND, n_images=0))
    for n in (0, 5):
        closed = after(PipelineReady(), endless, FileOpened(), StopRequested(), FileClosed(n))
        assert closed.acquisition.message == "Interrupted."


@pytest.mark.parametrize("events", [(), (*TO_READY, START), TO_WAITING])
def test_a_refused_event_changes_nothing(events: tuple[Event, ...]) -> None:
    status = after(*events)
    legal = TABLE[phase(status)]
    refused = [e for e in (START, FileOpened(), OpenFailed("x"), PipelineReady()) if type(e) not in legal]
    assert refused
    for event in refused:
        kept = replace(status)
        with pytest.raises(Busy):
            step(status, event, 2000.0)
        assert status == kept
