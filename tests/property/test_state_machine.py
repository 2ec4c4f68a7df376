"""No order of events breaks what an acquisition promises."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daq_core.errors import Busy
from daq_core.state.acquisition import COMPLETED, INTERRUPTED, phase, step
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
from daq_core.state.status import Acquisition, AcquisitionState, DaqState, DaqStatus, WriteRequest

COUNTS = st.integers(0, 12)
REASONS = st.text(min_size=1, max_size=8)
ENDED = (AcquisitionState.FINISHED, AcquisitionState.FAILED)


class AcquisitionMachine(RuleBasedStateMachine):
    """Throws every event at every status, sensible or not, and keeps its own book of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.status = DaqStatus()
        self.now = 1000.0
        self.n_requests = 0
        self.accepted: WriteRequest | None = None  # the request that has not ended yet
        self.ended: list[Acquisition] = []

    def happen(self, event: Event) -> bool:
        """Apply an event, look at the change it made, and tell whether it was legal."""
        before, kept = self.status, replace(self.status)
        self.now += 1.0
        try:
            after = step(before, event, self.now)
        except Busy:
            return False
        finally:
            assert before == kept
        self.status = after
        if isinstance(event, StartRequested):
            self.accepted = event.request
        self._look_at(before, after, event)
        return True

    def _look_at(self, before: DaqStatus, after: DaqStatus, event: Event) -> None:
        was_going_on = before.pending is not None or before.acquisition.running
        if was_going_on and not (after.pending is not None or after.acquisition.running):
            assert after.acquisition.request == self.accepted
            assert after.acquisition.stop_time == self.now
            self.ended.append(after.acquisition)
            self.accepted = None
        if after.acquisition.state is AcquisitionState.FINISHED and before.acquisition != after.acquisition:
            assert isinstance(event, FileClosed)
        same_run = before.acquisition.request is after.acquisition.request
        if same_run:
            assert after.acquisition.n_write_completed >= before.acquisition.n_write_completed
            assert after.acquisition.n_write_requested >= before.acquisition.n_write_requested

    @rule(n_images=st.integers(0, 6))
    def start(self, n_images: int) -> None:
        self.n_requests += 1
        request = WriteRequest(f"/data/{self.n_requests}.h5", n_images, self.n_requests)
        legal = self.status.state is DaqState.READY
        assert self.happen(StartRequested(request)) is legal

    @rule()
    def stop(self) -> None:
        assert self.happen(StopRequested())
        assert self.status.stopping or self.status.state is not DaqState.WRITING

    @rule(event=st.sampled_from([FileOpened(), ImageAcquired(), AllAcquired()]))
    def progress(self, event: Event) -> None:
        self.happen(event)

    @rule(n_requested=COUNTS, n_completed=COUNTS)
    def images_written(self, n_requested: int, n_completed: int) -> None:
        self.happen(ImagesWritten(n_requested, n_completed))

    @rule(more=st.integers(0, 6))
    def file_closed(self, more: int) -> None:
        """A closed file holds at least what could be seen of it before."""
        self.happen(FileClosed(self.status.acquisition.n_write_completed + more))

    @rule(kind=st.sampled_from([OpenFailed, WriterLost, ReceiverLost]), reason=REASONS)
    def something_fails(self, kind: type[OpenFailed | WriterLost | ReceiverLost], reason: str) -> None:
        self.happen(kind(reason))

    @rule(reason=REASONS, more=st.integers(0, 6))
    def write_failed(self, reason: str, more: int) -> None:
        self.happen(WriteFailed(reason, self.status.acquisition.n_write_completed + more))

    @rule()
    def config_accepted(self) -> None:
        legal = self.status.state is not DaqState.WRITING
        assert self.happen(ConfigAccepted()) is legal

    @rule()
    def pipeline_ready(self) -> None:
        if self.happen(PipelineReady()):
            assert self.status.state is DaqState.READY

    @invariant()
    def writing_means_a_request_is_pending_or_running(self) -> None:
        going_on = self.status.pending is not None or self.status.acquisition.running
        assert (self.status.state is DaqState.WRITING) is going_on
        assert phase(self.status).value  # every status is one of the situations

    @invariant()
    def completed_is_never_more_than_requested(self) -> None:
        acquisition = self.status.acquisition
        assert 0 <= acquisition.n_write_completed <= acquisition.n_write_requested

    @invariant()
    def every_accepted_request_ends_once(self) -> None:
        known = [acquisition.request for acquisition in self.ended]
        assert len(set(known)) == len(known)
        assert self.accepted not in known
        assert (self.accepted is not None) is (self.status.state is DaqState.WRITING)

    @invariant()
    def a_message_says_how_it_ended(self) -> None:
        acquisition = self.status.acquisition
        match acquisition.state:
            case AcquisitionState.FAILED:
                assert acquisition.message.startswith("ERROR: ")
            case AcquisitionState.FINISHED if acquisition.request is not None:
                complete = 0 < acquisition.request.n_images == acquisition.n_write_completed
                assert acquisition.message == (COMPLETED if complete else INTERRUPTED)
            case _:
                assert acquisition.message == ""

    @invariant()
    def unknown_has_a_reason_and_a_lost_receiver_is_unknown(self) -> None:
        assert (self.status.state is DaqState.UNKNOWN) is (self.status.reason != "")
        assert self.status.state is DaqState.UNKNOWN or not self.status.receiver_down
        assert not self.status.stopping or self.status.state is DaqState.WRITING

    @invariant()
    def times_belong_to_the_run(self) -> None:
        acquisition = self.status.acquisition
        if acquisition.request is None:
            assert acquisition.start_time is acquisition.stop_time is None
        else:
            assert acquisition.start_time is not None
            assert (acquisition.stop_time is not None) is (acquisition.state in ENDED)
            assert acquisition.stop_time is None or acquisition.stop_time > acquisition.start_time

    def teardown(self) -> None:
        """From wherever the events led, a stop and a sound pipeline lead to READY."""
        self.happen(StopRequested())
        if not self.happen(OpenFailed("no such folder")):
            self.happen(FileClosed(self.status.acquisition.n_write_completed))
        self.happen(PipelineReady())
        assert self.status.state is DaqState.READY
        assert self.accepted is None


AcquisitionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAcquisition = AcquisitionMachine.TestCase
