"""A service that is started again, by SYSRESET or after kill -9: its clients come back, and no PV lies."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from ioc.serve import RESTART
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.conftest import StartService
from tests.processes.service import Service

KILLED = "ERROR: the service was killed while the run was going on."


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def text(path: Path) -> list[int]:
    """Return a path as the elements of a long string."""
    return list(str(path).encode())


@pytest.mark.timeout(240)
def test_a_killed_service_comes_back_to_its_clients_with_the_truth(start_service: StartService) -> None:
    service = start_service()
    daq, hdf = service.prefix + "DAQ:", service.prefix + "HDF1:"
    states, written, log1 = daq + "State_RBV", daq + "AcqNWriteCompleted_RBV", daq + "Log1:State_RBV"
    idle = {  # what they show when no run is going on
        daq + "Busy_RBV": "Ready",
        daq + "WriteSync": "Done",
        daq + "CmdStatus_RBV": "Idle",
        hdf + "Capture_RBV": "Done",
        hdf + "Capture": "Done",
    }
    with EpicsPeer(service.ca_port) as client:
        client.monitor(states, written, log1, *idle, service.prefix + "IOC:START_CNT")
        path = service.output / "interrupted.h5"
        assert client.put(daq + "OutputFile", text(path)) == ECA_NORMAL
        assert client.put(daq + "NImages", 77) == ECA_NORMAL
        assert client.put(hdf + "FilePath", text(service.output)) == ECA_NORMAL
        assert client.put(daq + "WriteAsync", 1) == ECA_NORMAL
        service.simulator().send(5, rate_hz=50)
        client.wait_for(written, 5)
        for saved in ("77", str(service.output)):
            eventually(lambda value=saved: value in settings(service), f"{saved} was not saved")

        service.end(signal.SIGKILL)
        eventually(lambda: client.connected(states)[-1] is False, "the client did not notice the end")
        n_before = {name: len(client.updates(name)) for name in (states, written, log1, *idle)}
        service.start()
        eventually(lambda: client.connected(states)[-1] is True, "the client did not come back by itself")
        client.wait_for(log1, "FAILED", timeout_s=90)

        assert client.connected(states) == [True, False, True]
        # READY is all it was since: the DAQ was up before it was served, and no run is going on
        assert set(client.updates(states)[n_before[states] :]) == {"READY"}
        assert set(client.updates(written)[n_before[written] :]) <= {0, 5}  # of no run, then of the last
        assert (client.text(daq + "AcqState_RBV"), client.text(daq + "AcqMessage_RBV")) == ("FAILED", KILLED)
        assert (
            client.text(service.prefix + "cam1:DetectorState_RBV") == "Error"
        )  # as after any run that failed
        assert client.updates(log1)[n_before[log1] :] in (["FAILED"], ["NONE", "FAILED"])
        for name, shown in idle.items():
            assert set(client.updates(name)[n_before[name] :]) == {shown}, name
        assert client.text(daq + "Log1:Message_RBV") == KILLED
        assert client.text(daq + "Log1:OutputFile_RBV") == str(path)
        assert client.get(daq + "Log1:NWriteCompleted_RBV") == 5
        assert service.get("/daq/logs/5")["logs"] == []
        assert client.get(daq + "NImages") == 77
        assert client.text(hdf + "FilePath") == str(service.output)
        assert client.get(service.prefix + "IOC:START_CNT") == 2
        assert client.text(daq + "OutputFile") == ""  # its file is there already
        with h5py.File(path) as file:
            assert len(file["entry/data/data"]) == 5

        # the same client takes the next run
        assert client.put(daq + "OutputFile", text(service.output / "next.h5")) == ECA_NORMAL
        assert client.put(daq + "NImages", 3) == ECA_NORMAL
        client.send_put(daq + "WriteSync", 1)
        service.wait_for("WAITING_IMAGES")
        service.simulator().send(3, rate_hz=50)
        assert client.put_status() == ECA_NORMAL


@pytest.mark.timeout(240)
def test_sysreset_ends_with_the_code_that_the_supervisor_waits_for(start_service: StartService) -> None:
    service = start_service(engineer="A. Lovelace", location="X02DA")
    with EpicsPeer(service.ca_port) as client:
        ioc = service.prefix + "IOC:"
        assert client.put(service.prefix + "DAQ:NImages", 9) == ECA_NORMAL
        assert client.put(ioc + "SYSRESET", 1) == ECA_NORMAL
        assert service.wait() == RESTART
        service.start()
        client.monitor(ioc + "START_CNT")
        client.wait_for(ioc + "START_CNT", 2, timeout_s=60)
        assert client.get(service.prefix + "DAQ:NImages") == 9  # saved last, although just put
        assert client.text(ioc + "ENGINEER") == "A. Lovelace"
        assert client.text(ioc + "LOCATION") == "X02DA"
        assert client.get(ioc + "PROCESS_ID") == service.pid


def settings(service: Service) -> str:
    file = Path(service.options["state_dir"]) / "settings.json"
    return file.read_text() if file.exists() else ""
