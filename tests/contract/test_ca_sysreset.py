"""IOC:SYSRESET ends the service to have it started again, but never a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import JUNGFRAU_2


@pytest.fixture
def asked() -> threading.Event:
    """Whether the program was asked to end."""
    return threading.Event()


@pytest.fixture
def served(asked: threading.Event) -> Iterator[tuple[IocThread, EpicsPeer]]:
    config = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})
    with IocThread(config, end=asked.set) as ioc, EpicsPeer(ioc.ca_port) as peer:
        yield ioc, peer


def test_it_ends_a_service_that_is_ready(served: tuple[IocThread, EpicsPeer], asked: threading.Event) -> None:
    ioc, peer = served
    assert peer.put(ioc.pv("IOC:SYSRESET"), 1) == ECA_NORMAL
    assert asked.is_set()
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "OK"
    assert peer.text(ioc.pv("DAQ:CmdName_RBV")) == "SYSRESET"
    assert peer.get(ioc.pv("IOC:SYSRESET")) == 0  # momentary


def test_a_put_of_0_ends_nothing(served: tuple[IocThread, EpicsPeer], asked: threading.Event) -> None:
    ioc, peer = served
    assert peer.put(ioc.pv("IOC:SYSRESET"), 0) == ECA_NORMAL
    assert not asked.is_set()
    assert peer.get(ioc.pv("DAQ:CmdCount_RBV")) == 0


def test_it_is_refused_while_a_run_is_going_on_and_the_run_goes_on(
    served: tuple[IocThread, EpicsPeer], asked: threading.Event, tmp_path: Path
) -> None:
    ioc, peer = served
    peer.monitor(ioc.pv("DAQ:AcqState_RBV"))
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(tmp_path / "a.h5")) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:NImages"), 2) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    assert peer.put(ioc.pv("IOC:SYSRESET"), 1) != ECA_NORMAL  # seen by the put,
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"  # by the result of the last command,
    assert "Stop it" in peer.text(ioc.pv("DAQ:CmdMessage_RBV"))
    assert peer.get(ioc.pv("IOC:SYSRESET")) == 0  # and by the command, which is not active
    assert not asked.is_set()
    ioc.receive(2)
    peer.wait_for(ioc.pv("DAQ:AcqState_RBV"), "FINISHED")
    assert peer.text(ioc.pv("DAQ:AcqMessage_RBV")) == "Completed."
