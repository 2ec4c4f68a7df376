"""The whole program, packets to file, driven by the C Channel Access library."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import h5py
import pytest

from ioc.pvs.health import HEALTH
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.conftest import StartService
from tests.processes.service import JUNGFRAU_2, Service

MINOR, MAJOR, INVALID = 1, 2, 3  # severities
HIHI, HIGH = 3, 4  # alarm status; source: EPICS Base, alarm.h


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


def test_the_ioc_tells_of_its_process_its_machine_and_its_faces(
    service: Service, clients: tuple[EpicsPeer, EpicsPeer]
) -> None:
    peer, other = clients
    ioc = service.prefix + "IOC:"
    other.monitor(*(ioc + name for name in ("IOC_CPU_LOAD", "CA_CLNT_CNT", "UpdatesPerSec_RBV", "TOD")))
    assert peer.get(ioc + "PROCESS_ID") == service.pid
    assert peer.get(ioc + "PARENT_ID") == os.getpid()
    assert peer.text(ioc + "HOSTNAME") == os.uname().nodename
    assert os.uname().release in peer.text(ioc + "KERNEL_VERS")
    assert peer.text(ioc + "EPICS_VERS") == f"caproto {version('caproto')}"
    assert peer.text(ioc + "APP_DIR") == os.getcwd()
    assert peer.get(ioc + "CPU_CNT") == os.cpu_count()
    assert peer.get(ioc + "START_CNT") >= 1
    status = Path(f"/proc/{service.pid}/status").read_text()
    resident = 1024 * int(status.partition("VmRSS:")[2].split()[0])
    assert peer.get(ioc + "MEM_USED") == pytest.approx(resident, rel=0.2)
    assert peer.get(ioc + "MEM_MAX") > peer.get(ioc + "MEM_FREE") > 0
    assert peer.get(ioc + "FD_MAX") == resource.prlimit(service.pid, resource.RLIMIT_NOFILE)[0]
    n_open = len(os.listdir(f"/proc/{service.pid}/fd"))
    assert abs(peer.get(ioc + "FD_CNT") - n_open) <= 5  # a circuit may have come since
    assert peer.text(ioc + "RedisConnected_RBV") == "Connected"
    assert peer.info(ioc + "RedisLatency_RBV")["severity"] < INVALID
    other.wait_for(ioc + "CA_CLNT_CNT", 2.0)
    assert other.updates(ioc + "IOC_CPU_LOAD")[-1] > 0
    for row in HEALTH:  # a second after the start, all of it is known
        assert peer.info(service.prefix + row.pv(""))["severity"] < INVALID, row.name


def writer_of(service: Service) -> int:
    """Return the pid of the writer of a service's run: a child of its fork server."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, after = (folder / "stat").read_text().partition("(")[2].rsplit(")", 1)
            parents[int(folder.name)] = (name, int(after.split()[1]))
    (pid,) = [
        pid
        for pid, (name, parent) in parents.items()
        if name == "daq-writer" and parents[parent][1] == service.pid
    ]
    return pid


def test_the_ring_is_in_alarm_before_the_first_image_is_dropped(start_service: StartService) -> None:
    """MINOR while all images are safe still, then MAJOR; with a sentence that says what to do."""
    service = start_service({**JUNGFRAU_2, "ram_buffer_gb": 0.02})
    with EpicsPeer(service.ca_port) as peer:
        daq = service.prefix + "DAQ:"
        n_slots = peer.get(daq + "RingSlots_RBV")
        assert peer.put(daq + "OutputFile", str(service.output / "slow.h5")) == ECA_NORMAL
        assert peer.put(daq + "NImages", 1000) == ECA_NORMAL
        assert peer.put(daq + "WriteAsync", 1) == ECA_NORMAL
        peer.monitor(daq + "RingUsed_RBV")
        writer = writer_of(service)
        os.kill(writer, signal.SIGSTOP)
        try:
            n_safe = int(n_slots * 0.85)
            service.simulator().send(n_safe, rate_hz=20)
            peer.wait_for(daq + "RingUsed_RBV", pytest.approx(100 * n_safe / n_slots))
            assert peer.alarms(daq + "RingUsed_RBV")[-1] == (HIGH, MINOR)
            assert peer.get(daq + "DroppedImages_RBV") == 0
            assert "the image ring is nearly full" in peer.text(daq + "Warning_RBV")
            service.simulator().send(n_slots - n_safe + 3, rate_hz=20, first_id=n_safe + 1)
            peer.monitor(daq + "DroppedImages_RBV")
            peer.wait_for(daq + "DroppedImages_RBV", 3)
            assert peer.alarms(daq + "RingUsed_RBV")[-1] == (HIHI, MAJOR)
        finally:
            os.kill(writer, signal.SIGCONT)
        peer.wait_for(daq + "RingUsed_RBV", 0.0)
        assert peer.put(daq + "Stop", 1) == ECA_NORMAL
        assert peer.get(daq + "AcqNWriteCompleted_RBV") == n_slots


def test_an_open_ended_capture_writes_until_it_is_stopped_and_every_face_agrees(
    service: Service, clients: tuple[EpicsPeer, EpicsPeer]
) -> None:
    peer, other = clients
    daq, hdf = service.prefix + "DAQ:", service.prefix + "HDF1:"
    for name, value in {"FilePath": str(service.output), "FileName": "endless", "NumCapture": 0}.items():
        assert peer.put(hdf + name, value) == ECA_NORMAL
    other.monitor(hdf + "Capture_RBV", hdf + "NumCaptured_RBV")
    peer.send_put(hdf + "Capture", 1, timeout_s=60)
    other.wait_for(hdf + "Capture_RBV", "Capturing")
    assert other.get(daq + "AcqNImages_RBV") == 0
    simulator = service.simulator()
    simulator.send(30, rate_hz=200)
    other.wait_for(hdf + "NumCaptured_RBV", 30)
    assert service.status()["acquisition"]["info"]["n_images"] == 0
    assert other.get(daq + "AcqProgress_RBV") == 0.0
    assert other.put(daq + "Stop", 1) == ECA_NORMAL
    assert peer.put_status() == ECA_NORMAL

    assert peer.text(hdf + "WriteStatus") == "Write OK"
    for name in ("AcqMessage_RBV", "Log1:Message_RBV"):
        assert peer.text(daq + name) == "Interrupted."
    for name in ("AcqState_RBV", "AcqMissing_RBV", "AcqMessage_RBV"):  # to stop it is no failure
        assert peer.info(daq + name)["severity"] == 0
    assert peer.get(daq + "Log1:NWriteCompleted_RBV") == 30
    logged = service.get("/daq/logs/1")["logs"][0]
    assert (logged["state"], logged["info"]["n_images"]) == ("FINISHED", 0)
    with h5py.File(peer.text(hdf + "FullFileName_RBV")) as file:
        data = file["entry/data/data"]
        ids = file["entry/data/image_id"][:]
        assert list(ids) == list(range(1, 31))
        for row in (0, 29):
            assert (data[row] == simulator.image(int(ids[row]))).all()
