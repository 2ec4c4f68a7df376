"""The whole program, packets to file, driven by the C Channel Access library."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import pytest

from tests.epics_peer import ECA_NORMAL, EpicsPeer
from tests.service import Service


@pytest.fixture
def clients(service: Service) -> Iterator[tuple[EpicsPeer, EpicsPeer]]:
    with EpicsPeer(service.ca_port) as first, EpicsPeer(service.ca_port) as second:
        yield first, second


def test_a_run_by_channel_access_is_seen_state_by_state(
    service: Service, clients: tuple[EpicsPeer, EpicsPeer]
) -> None:
    peer, other = clients
    daq = service.prefix + "DAQ:"
    path = service.output / "a run by Channel Access with a long name.h5"
    states, counts = daq + "AcqState_RBV", daq + "AcqNWriteCompleted_RBV"
    other.monitor(daq + "State_RBV", states, counts)
    assert peer.put(daq + "OutputFile", str(path)) == ECA_NORMAL
    assert peer.put(daq + "NImages", 20) == ECA_NORMAL
    peer.send_put(daq + "WriteSync", 1)
    other.wait_for(states, "WAITING_IMAGES")
    service.simulator().send(20, rate_hz=100)
    assert peer.put_status() == ECA_NORMAL

    assert peer.text(daq + "State_RBV") == "READY"
    assert peer.text(daq + "AcqMessage_RBV") == "Completed."
    assert peer.get(counts) == 20
    with h5py.File(path) as file:  # put completion means that the file is closed
        assert file["entry/data/data"].shape[0] == 20
    other.wait_for(states, "FINISHED")
    assert other.updates(daq + "State_RBV")[-2:] == ["WRITING", "READY"]
    shown = other.updates(states)
    assert shown[shown.index("WAITING_IMAGES") :] == list(
        dict.fromkeys(shown[shown.index("WAITING_IMAGES") :])
    )
    assert shown[-1] == "FINISHED"
    seen = other.updates(counts)
    assert seen[-1] == 20
    run = seen[len(seen) - seen[::-1].index(0) - 1 :]
    assert run == sorted(run)


def test_a_second_client_stops_a_run_and_a_second_start_is_refused(
    service: Service, clients: tuple[EpicsPeer, EpicsPeer]
) -> None:
    peer, other = clients
    daq = service.prefix + "DAQ:"
    path = service.output / "a run that is stopped by somebody else, half way.h5"
    other.monitor(daq + "AcqState_RBV", daq + "AcqNWriteCompleted_RBV")
    assert peer.put(daq + "OutputFile", str(path)) == ECA_NORMAL
    assert peer.put(daq + "NImages", 1000) == ECA_NORMAL
    peer.send_put(daq + "WriteSync", 1)
    other.wait_for(daq + "AcqState_RBV", "WAITING_IMAGES")
    service.simulator().send(5, rate_hz=100)
    other.wait_for(daq + "AcqNWriteCompleted_RBV", 5)

    assert other.put(daq + "WriteSync", 1) != ECA_NORMAL
    assert other.text(daq + "CmdStatus_RBV") == "Rejected"
    assert other.text(daq + "State_RBV") == "WRITING"
    assert other.put(daq + "Stop", 1) == ECA_NORMAL
    assert peer.put_status() == ECA_NORMAL
    assert peer.text(daq + "AcqMessage_RBV") == "Interrupted."
    with h5py.File(path) as file:
        assert file["entry/data/data"].shape[0] == 5
