"""Commands that take their time: put-completion, release by Stop, refusals in three ways; states by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daq_core.errors import Unavailable
from daq_core.state import events as ev
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from tests.channel_access.ca_wire import LONG, STRING
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread

ROWS = {row.pv(""): row for row in PVS}


@dataclass(frozen=True)
class Command:
    """A put that takes its time."""

    pv: str
    busy: str  # what reads 1 meanwhile
    end: Callable[[IocThread], None]  # lets it come to its own end
    shows_write_status: bool = False


def all_images(ioc: IocThread) -> None:
    wait_until(lambda: ioc.daq.snapshot.status.acquisition.running)
    ioc.receive(3)


def published(ioc: IocThread) -> None:
    ioc.do(ioc.daq.publish_images(3))


def nothing(ioc: IocThread) -> None:
    """It ends by itself, when the new config runs."""


COMMANDS = [
    Command("DAQ:WriteSync", "DAQ:WriteSync", all_images),
    Command("HDF1:Capture", "HDF1:Capture_RBV", all_images, shows_write_status=True),
    Command("HDF1:WriteFile", "HDF1:WriteFile_RBV", all_images, shows_write_status=True),
    Command("cam1:Acquire", "cam1:Acquire_RBV", published),
    Command("DAQ:ConfigApply", "DAQ:ConfigApply", nothing),
]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.pv)


@pytest.fixture
def ready(ioc: IocThread, peer: EpicsPeer, tmp_path: Path) -> Iterator[IocThread]:
    """An IOC where each command is accepted: a file to write, three images to wait for, a staged config."""
    setpoints = {
        "DAQ:OutputFile": str(tmp_path / "a file with a name that is longer than forty bytes.h5"),
        "DAQ:NImages": 3,
        "HDF1:FilePath": str(tmp_path),
        "HDF1:FileName": "captured",
        "HDF1:NumCapture": 3,
        "cam1:NumImages": 3,
        "DAQ:CfgWriterUserId": 4321,
    }
    for name, value in setpoints.items():
        assert peer.put(ioc.pv(name), value) == ECA_NORMAL
    yield ioc
    assert peer.put(ioc.pv("DAQ:Stop"), 1) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL
    ioc.do(ioc.daq.configure({"writer_user_id": -1}))
    ioc.do(ioc.daq.reconfigured())


@each_command
def test_a_put_completes_with_its_command_and_not_before(
    ready: IocThread, peer: EpicsPeer, other: EpicsPeer, command: Command
) -> None:
    busy = ready.pv(command.busy)
    other.monitor(busy)
    ready.daq.restart_s = 1.0
    peer.send_put(ready.pv(command.pv), 1)
    idle, active, *_ = ROWS[command.busy].choices
    other.wait_for(busy, active)
    assert other.updates(busy) == [idle, active]
    command.end(ready)
    assert peer.put_status() == ECA_NORMAL
    other.wait_for(busy, idle)
    assert peer.text(busy) == idle
    wait_until(lambda: other.updates(busy) == [idle, active, idle])


@each_command
def test_stop_of_another_client_releases_a_put(
    ready: IocThread, peer: EpicsPeer, other: EpicsPeer, command: Command
) -> None:
    busy = ready.pv(command.busy)
    idle, active, *_ = ROWS[command.busy].choices
    other.monitor(busy)
    ready.daq.restart_s = 1.0
    peer.send_put(ready.pv(command.pv), 1, timeout_s=30)
    other.wait_for(busy, active)
    assert other.put(ready.pv("DAQ:Stop"), 1) == ECA_NORMAL
    assert peer.put_status() == ECA_NORMAL  # an interrupted one is a success
    assert peer.text(busy) == idle
    assert peer.text(ready.pv("DAQ:State_RBV")) == "READY"


def test_a_stop_that_fails_releases_a_config_change_too(
    ready: IocThread, peer: EpicsPeer, other: EpicsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_vain() -> None:
        raise Unavailable("Stopped, but not READY: receiver lost.")

    ready.daq.restart_s = 1e6
    monkeypatch.setattr(ready.daq, "stop", in_vain)
    other.monitor(ready.pv("DAQ:ConfigApply"))
    peer.send_put(ready.pv("DAQ:ConfigApply"), 1, timeout_s=25)
    other.wait_for(ready.pv("DAQ:ConfigApply"), "Apply")
    assert other.put(ready.pv("DAQ:Stop"), 1) != ECA_NORMAL
    assert peer.put_status() != ECA_NORMAL
    assert "Stopped before the new config ran" in peer.text(ready.pv("DAQ:CmdMessage_RBV"))
    monkeypatch.undo()
    ready.daq.restart_s = 0.1
    ready.apply(ev.PipelineReady())


def why_not_write_sync(ioc: IocThread, peer: EpicsPeer) -> str:
    assert peer.put(ioc.pv("DAQ:OutputFile"), "/no/such/folder/for/anybody/x.h5") == ECA_NORMAL
    return "/no/such/folder"


def why_not_capture(ioc: IocThread, peer: EpicsPeer) -> str:
    assert peer.put(ioc.pv("HDF1:FilePath"), "/no/such/folder/for/anybody/") == ECA_NORMAL
    return "/no/such/folder"


def why_not_acquire(ioc: IocThread, peer: EpicsPeer) -> str:
    assert peer.put(ioc.pv("cam1:ImageMode"), 1) == ECA_NORMAL
    assert peer.put(ioc.pv("cam1:NumImages"), 0) == ECA_NORMAL
    return "NumImages is 0"


def why_not_apply(ioc: IocThread, peer: EpicsPeer) -> str:
    assert peer.put(ioc.pv("DAQ:CfgModuleIds"), [0, 0]) == ECA_NORMAL
    return "names a module twice"


@pytest.mark.parametrize(
    ("name", "busy", "prepare", "on_file"),
    [
        ("DAQ:WriteSync", "DAQ:WriteSync", why_not_write_sync, False),
        ("DAQ:WriteAsync", "DAQ:WriteAsync", why_not_write_sync, False),
        ("HDF1:Capture", "HDF1:Capture_RBV", why_not_capture, True),
        ("HDF1:WriteFile", "HDF1:WriteFile_RBV", why_not_capture, True),
        ("cam1:Acquire", "cam1:Acquire_RBV", why_not_acquire, False),
        ("DAQ:ConfigApply", "DAQ:ConfigApply", why_not_apply, False),
    ],
)
def test_a_refusal_shows_three_ways(
    ready: IocThread,
    peer: EpicsPeer,
    other: EpicsPeer,
    name: str,
    busy: str,
    prepare: Callable[[IocThread, EpicsPeer], str],
    on_file: bool,
) -> None:
    reason = prepare(ready, peer)
    other.monitor(ready.pv(busy))
    status = ready.daq.snapshot.status
    # the put fails
    assert peer.put(ready.pv(name), 1) != ECA_NORMAL
    # the PVs say why, with a severity
    assert peer.text(ready.pv("DAQ:CmdStatus_RBV")) == "Rejected"
    assert peer.info(ready.pv("DAQ:CmdStatus_RBV"))["severity"] == 1
    assert reason in peer.text(ready.pv("DAQ:CmdMessage_RBV"))
    assert peer.text(ready.pv("DAQ:CmdName_RBV")) == name.partition(":")[2]
    if on_file:
        assert peer.text(ready.pv("HDF1:WriteStatus")) == "Write error"
        assert peer.info(ready.pv("HDF1:WriteStatus"))["severity"] == 2
        assert reason in peer.text(ready.pv("HDF1:WriteMessage"))
    # and nobody has seen it busy
    assert peer.get(ready.pv(busy)) == peer.get(ready.pv(name)) == 0
    assert other.updates(ready.pv(busy)) == [ROWS[busy].choices[0]]
    assert ready.daq.snapshot.status == status


ACTING = {"WriteAsync", "Stop", "ConfigRevert", "SYSRESET", "READACF"}  # they do something, and read 0 again
CHOICES = [
    row for row in PVS if row.put is not None and row.record in ("mbbo", "bo") and row.name not in ACTING
]


@pytest.mark.parametrize("row", CHOICES, ids=lambda row: row.pv(""))
def test_a_state_is_put_by_name_and_by_index(ioc: IocThread, peer: EpicsPeer, row: Row) -> None:
    """What is accepted by name is accepted by index, as a number or as text, and refused likewise."""
    pv = ioc.pv(row.pv(""))
    before = peer.text(pv)
    for index, state in enumerate(row.choices):
        outcomes = []
        for value in (state, index, str(index)):
            peer.put(pv, value, as_type=STRING if isinstance(value, str) else None)
            outcomes.append(peer.text(pv))
        assert len(set(outcomes)) == 1
        assert outcomes[0] in (state, before) or row.name == "CfgDetectorType"
    for wrong in (len(row.choices), -1, 65_535, "no such state", ""):
        shown = peer.text(pv)
        assert peer.put(pv, wrong, as_type=STRING if isinstance(wrong, str) else LONG) != ECA_NORMAL
        assert peer.text(pv) == shown
    peer.put(pv, before, as_type=STRING)
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL


@pytest.mark.parametrize("value", ["Stop", "1", 1])
def test_a_command_is_put_by_name_and_by_index(ready: IocThread, peer: EpicsPeer, value: object) -> None:
    how = {"as_type": STRING} if isinstance(value, str) else {}
    assert peer.put(ready.pv("DAQ:WriteAsync"), "Start" if value == "Stop" else value, **how) == ECA_NORMAL
    assert peer.text(ready.pv("DAQ:State_RBV")) == "WRITING"
    for nothing in ("Done", "0"):  # the other state of a command asks for nothing
        assert peer.put(ready.pv("DAQ:Stop"), nothing, as_type=STRING) == ECA_NORMAL
        assert peer.text(ready.pv("DAQ:State_RBV")) == "WRITING"
    assert peer.put(ready.pv("DAQ:Stop"), value, **how) == ECA_NORMAL
    assert peer.text(ready.pv("DAQ:State_RBV")) == "READY"


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
