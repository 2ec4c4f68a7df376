"""Runs by Channel Access, as the C library does them: setpoints, commands, completion, refusals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daq_core.state import events as ev
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread


@pytest.fixture
def prepared(ioc: IocThread, peer: EpicsPeer, tmp_path: Path) -> Path:
    """The file that the next run writes, 5 images."""
    path = tmp_path / "run with a name longer than the forty characters of a string.h5"
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(path)) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:NImages"), 5) == ECA_NORMAL
    return path


def test_setpoints_are_kept_and_read_back(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    assert peer.text(ioc.pv("DAQ:OutputFile")) == str(prepared)
    assert peer.text(ioc.pv("DAQ:OutputFile_RBV")) == str(prepared)
    assert peer.get(ioc.pv("DAQ:NImages_RBV")) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAQ:OutputFile", "relative.h5"),
        ("DAQ:OutputFile", "/tmp/../etc/passwd"),
        ("DAQ:OutputFile", ""),
        ("DAQ:NImages", 0),
        ("DAQ:NImages", -1),
        ("DAQ:LogN", 51),
        ("DAQ:CfgBitDepth", 7),
        ("DAQ:CfgStartUdpPort", 70000),
        ("DAQ:CfgJson", "{"),
        ("DAQ:CfgJson", '{"no_such_key": 1}'),
        ("DAQ:CfgJson", '{"image_pixel_width": 3}'),
    ],
)
def test_a_bad_setpoint_is_refused_and_changes_nothing(
    ioc: IocThread, peer: EpicsPeer, prepared: Path, name: str, value: object
) -> None:
    before = peer.text(ioc.pv(name))
    rejected = peer.get(ioc.pv("DAQ:CmdRejected_RBV"))
    assert peer.put(ioc.pv(name), value) != ECA_NORMAL
    assert peer.text(ioc.pv(name)) == before
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
    assert peer.text(ioc.pv("DAQ:CmdMessage_RBV")) != ""
    assert peer.get(ioc.pv("DAQ:CmdRejected_RBV")) == rejected + 1


def test_a_setpoint_that_is_put_right_is_no_longer_rejected(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("DAQ:NImages"), 0) != ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(prepared)) == ECA_NORMAL  # another one
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
    assert peer.put(ioc.pv("DAQ:NImages"), 3) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "OK"
    assert peer.text(ioc.pv("DAQ:CmdMessage_RBV")) == ""
    assert peer.info(ioc.pv("DAQ:CmdStatus_RBV"))["severity"] == 0


def test_write_sync_completes_when_the_file_is_closed(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    names = [
        ioc.pv(f"DAQ:{name}") for name in ("AcqState_RBV", "State_RBV", "WriteSync", "AcqNWriteCompleted_RBV")
    ]
    peer.monitor(*names)
    peer.send_put(ioc.pv("DAQ:WriteSync"), 1)
    wait_until_open(ioc)
    ioc.receive(5)
    assert peer.put_status() == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"
    assert peer.text(ioc.pv("DAQ:AcqMessage_RBV")) == "Completed."
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "OK"
    peer.wait_for(names[0], "FINISHED")
    assert peer.updates(names[0])[1:] == [
        "WAITING_IMAGES",
        "ACQUIRING_IMAGES",
        "WRITING",
        "FLUSHING_IMAGES",
        "FINISHED",
    ]
    assert peer.updates(names[1]) == ["READY", "WRITING", "READY"]
    assert peer.updates(names[2]) == ["Done", "Start", "Done"]
    counts = peer.updates(names[3])[1:]
    assert counts == sorted(counts)
    assert counts[-1] == 5


def test_write_async_completes_when_the_writer_waits_for_images(
    ioc: IocThread, peer: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "WRITING"
    assert peer.text(ioc.pv("DAQ:AcqState_RBV")) == "WAITING_IMAGES"
    assert peer.text(ioc.pv("DAQ:AcqOutputFile_RBV")) == str(prepared)
    assert peer.get(ioc.pv("DAQ:WriteAsync")) == 0
    assert peer.text(ioc.pv("DAQ:Busy_RBV")) == "Busy"


def test_a_second_start_is_refused_and_changes_nothing(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, prepared: Path
) -> None:
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    for command in ("DAQ:WriteSync", "DAQ:WriteAsync"):
        assert other.put(ioc.pv(command), 1) != ECA_NORMAL
        assert other.get(ioc.pv(command)) == 0
        assert other.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
        assert str(prepared) in other.text(ioc.pv("DAQ:CmdMessage_RBV"))
        assert other.info(ioc.pv("DAQ:CmdStatus_RBV"))["severity"] == 1
    assert other.text(ioc.pv("DAQ:AcqState_RBV")) == "WAITING_IMAGES"
    ioc.receive(5)
    assert other.text(ioc.pv("DAQ:AcqMessage_RBV")) == "Completed."


def test_stop_of_another_client_releases_write_sync(
    ioc: IocThread, peer: EpicsPeer, other: EpicsPeer, prepared: Path
) -> None:
    peer.send_put(ioc.pv("DAQ:WriteSync"), 1)
    wait_until_open(ioc)
    ioc.receive(2)
    assert other.put(ioc.pv("DAQ:Stop"), 1) == ECA_NORMAL
    assert other.text(ioc.pv("DAQ:State_RBV")) == "READY"
    assert peer.put_status() == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:AcqMessage_RBV")) == "Interrupted."
    assert peer.get(ioc.pv("DAQ:AcqNWriteCompleted_RBV")) == 2
    assert peer.get(ioc.pv("DAQ:AcqMissing_RBV")) == 3


def test_stop_of_an_idle_daq_completes(ioc: IocThread, peer: EpicsPeer) -> None:
    assert peer.put(ioc.pv("DAQ:Stop"), 1) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "OK"


def test_a_start_into_a_missing_folder_is_refused_with_the_reason(ioc: IocThread, peer: EpicsPeer) -> None:
    assert peer.put(ioc.pv("DAQ:OutputFile"), "/no/such/folder/for/anybody/anywhere/x.h5") == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteSync"), 1) != ECA_NORMAL
    assert "/no/such/folder" in peer.text(ioc.pv("DAQ:CmdMessage_RBV"))
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"
    assert peer.get(ioc.pv("DAQ:WriteSync")) == 0


def test_a_failed_run_is_a_put_error_and_a_major_alarm(
    ioc: IocThread, peer: EpicsPeer, prepared: Path, tmp_path: Path
) -> None:
    peer.send_put(ioc.pv("DAQ:WriteSync"), 1)
    wait_until_open(ioc)
    ioc.apply(ev.WriteFailed("No space left on device.", 0))
    assert peer.put_status() != ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Failed"
    assert "No space left" in peer.text(ioc.pv("DAQ:CmdMessage_RBV"))
    for name in ("DAQ:AcqState_RBV", "DAQ:AcqMessage_RBV", "DAQ:CmdStatus_RBV"):
        assert peer.info(ioc.pv(name))["severity"] == 2
    assert peer.put(ioc.pv("DAQ:OutputFile"), str(tmp_path / ("next" * 12 + ".h5"))) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    assert peer.info(ioc.pv("DAQ:AcqState_RBV"))["severity"] == 0


def test_a_client_that_vanishes_does_not_end_its_run(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    with EpicsPeer(ioc.ca_port) as third:
        third.send_put(ioc.pv("DAQ:WriteSync"), 1)
        wait_until_open(ioc)
    ioc.receive(5)
    assert peer.text(ioc.pv("DAQ:AcqMessage_RBV")) == "Completed."
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "OK"


def test_a_run_id_is_for_one_run(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    assert peer.put(ioc.pv("DAQ:RunId"), "1685090990182000000") == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:AcqRunId_RBV")) == "1685090990182000000"
    assert ioc.daq.snapshot.status.acquisition.request is not None
    assert ioc.daq.snapshot.status.acquisition.request.run_id == 1685090990182000000
    assert peer.text(ioc.pv("DAQ:RunId_RBV")) == ""


def test_a_staged_config_is_pending_until_it_is_applied(ioc: IocThread, peer: EpicsPeer) -> None:
    assert peer.put(ioc.pv("DAQ:CfgWriterUserId"), 1234) == ECA_NORMAL
    assert peer.get(ioc.pv("DAQ:CfgWriterUserId_RBV")) == -1
    assert peer.text(ioc.pv("DAQ:ConfigPending_RBV")) == "Pending"
    assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"
    assert peer.get(ioc.pv("DAQ:CfgWriterUserId_RBV")) == 1234
    assert peer.text(ioc.pv("DAQ:ConfigPending_RBV")) == "Clean"
    assert peer.put(ioc.pv("DAQ:CfgJson"), '{"writer_user_id": -1}') == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) == ECA_NORMAL
    assert peer.get(ioc.pv("DAQ:CfgWriterUserId_RBV")) == -1


def test_the_compression_of_the_config_is_shown_in_the_words_of_areadetector(
    ioc: IocThread, peer: EpicsPeer
) -> None:
    assert peer.text(ioc.pv("HDF1:Compression_RBV")) == "None"
    for compression, shown in (("bitshuffle-lz4", "BSLZ4"), ("none", "None")):
        assert peer.put(ioc.pv("DAQ:CfgJson"), f'{{"compression": "{compression}"}}') == ECA_NORMAL
        assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) == ECA_NORMAL
        assert peer.text(ioc.pv("HDF1:Compression_RBV")) == shown
        assert peer.text(ioc.pv("HDF1:Compression")) == shown


def test_a_staged_config_can_be_forgotten(ioc: IocThread, peer: EpicsPeer) -> None:
    assert peer.put(ioc.pv("DAQ:CfgNModules"), 1) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:CfgModuleIds"), [0]) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:CfgModulePositions"), [0, 0, 1023, 511]) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL
    assert peer.get(ioc.pv("DAQ:CfgNModules")) == 2
    assert peer.get(ioc.pv("DAQ:CfgModuleIds")) == [0, 1]
    assert peer.text(ioc.pv("DAQ:ConfigPending_RBV")) == "Clean"


def test_module_positions_are_applied_as_two_arrays(ioc: IocThread, peer: EpicsPeer) -> None:
    flipped = [0, 511, 1023, 0, 0, 512, 1023, 1023]
    assert peer.put(ioc.pv("DAQ:CfgModulePositions"), flipped) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) == ECA_NORMAL
    assert peer.get(ioc.pv("DAQ:CfgModulePositions_RBV")) == flipped
    assert peer.put(ioc.pv("DAQ:CfgModulePositions"), flipped[:4]) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) != ECA_NORMAL
    assert "4 numbers for the 2 modules" in peer.text(ioc.pv("DAQ:CmdMessage_RBV"))
    assert peer.get(ioc.pv("DAQ:CfgModulePositions_RBV")) == flipped
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL


def test_a_config_is_not_applied_during_a_run(ioc: IocThread, peer: EpicsPeer, prepared: Path) -> None:
    assert peer.put(ioc.pv("DAQ:CfgWriterUserId"), 77) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:WriteAsync"), 1) == ECA_NORMAL
    assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) != ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
    assert peer.text(ioc.pv("DAQ:AcqState_RBV")) == "WAITING_IMAGES"
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL


def test_while_the_receiver_is_down_values_stay_and_are_invalid(ioc: IocThread, peer: EpicsPeer) -> None:
    rates = [
        ioc.pv(f"DAQ:{name}")
        for name in ("State_RBV", "AcqState_RBV", "DetImagesPerSec_RBV", "PacketsReceived_RBV")
    ]
    ioc.apply(ev.ReceiverLost("killed"))
    try:
        assert peer.text(ioc.pv("DAQ:State_RBV")) == "UNKNOWN"
        assert {peer.info(name)["severity"] for name in rates} == {3}
        assert {peer.info(name)["status"] for name in rates} == {9}  # COMM
    finally:
        ioc.apply(ev.PipelineReady())
    assert {peer.info(name)["severity"] for name in rates} == {0}


def test_a_monitor_of_a_field_sees_the_alarm_change(ioc: IocThread, peer: EpicsPeer) -> None:
    severity = ioc.pv("DAQ:State_RBV.SEVR")
    peer.monitor(severity)
    ioc.apply(ev.ReceiverLost("killed"))
    ioc.apply(ev.PipelineReady())
    peer.wait_for(severity, "INVALID")
    assert peer.text(severity) == "NO_ALARM"


def wait_until_open(ioc: IocThread) -> None:
    """Wait until the run's file is open, as seen from within."""
    deadline = time.monotonic() + 10
    while not ioc.daq.snapshot.status.acquisition.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
