"""Every setpoint, through the C library: what cannot be is refused and changes nothing; texts come whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from daq_core.detectors import FORMATS
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from tests.channel_access.access_pair import config
from tests.channel_access.ca_wire import CHAR, DOUBLE, INT, LONG, STRING
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import Service

NUMBERS = (float("nan"), float("inf"), 2.0**31, -1e300, 2.5)
LONG_TEXT = "/data/" + "/".join(["Mößbauer µm 測定"] * 40)


def setpoints() -> list[Row]:
    return [row for row in PVS if row.put is not None]


def refused_values(row: Row) -> list[tuple[Any, int]]:
    """Return values that the setpoint cannot have, each with the DBR type to put it as."""
    match row.record:
        case "ao":
            return [*((value, DOUBLE) for value in NUMBERS[:2]), ("text", STRING)]
        case "longout":
            least, greatest = row.control
            beyond = [least - 1, greatest + 1] if row.control != (0, 0) else []
            return [*((value, DOUBLE) for value in (*NUMBERS, *beyond)), ("text", STRING), ("", STRING)]
        case "waveform" if row.ftvl == "LONG":
            return [([0.5], DOUBLE), ([2.0**31], DOUBLE), ([1.0, float("nan")], DOUBLE), ("text", STRING)]
        case "waveform":
            return [([0xFF, 0xFE], CHAR), ("x" * 39, STRING), ([1.5, 2.5], DOUBLE), ([1, 2], INT)]
        case "stringout":
            return [(1, LONG), (2.5, DOUBLE)]
        case _:
            n = len(row.choices)
            return [(n, LONG), (-1, LONG), (0.5, DOUBLE), ("no such state", STRING), ("", STRING)]


@pytest.mark.parametrize("row", setpoints(), ids=lambda row: row.pv(""))
def test_a_refused_value_changes_nothing(ioc: IocThread, peer: EpicsPeer, row: Row) -> None:
    for value, kind in refused_values(row):
        before = everything_but_the_command(ioc)
        assert peer.put(ioc.pv(row.pv("")), value, as_type=kind) != ECA_NORMAL, value
        assert everything_but_the_command(ioc) == before
        assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
        assert peer.text(ioc.pv("DAQ:CmdName_RBV")) == row.name
        assert peer.text(ioc.pv("DAQ:CmdMessage_RBV")) != ""


@pytest.mark.parametrize("detector_type", FORMATS)
def test_every_detector_type_that_a_config_may_have_can_be_chosen(
    ioc: IocThread, peer: EpicsPeer, detector_type: str
) -> None:
    assert peer.put(ioc.pv("DAQ:CfgDetectorType"), detector_type, as_type=STRING) == ECA_NORMAL
    assert peer.text(ioc.pv("DAQ:CfgDetectorType")) == detector_type


def test_a_detector_that_was_chosen_by_channel_access_is_applied_and_shown_by_its_name() -> None:
    one_module = {
        "image_pixel_height": 400,
        "image_pixel_width": 400,
        "n_modules": 1,
        "module_positions": {"0": [0, 0, 399, 399]},
    }
    with IocThread(config()) as ioc, EpicsPeer(ioc.ca_port) as peer:
        assert peer.put(ioc.pv("DAQ:CfgDetectorType"), "moench", as_type=STRING) == ECA_NORMAL
        json_text = list(json.dumps(one_module).encode())
        assert peer.put(ioc.pv("DAQ:CfgJson"), json_text, as_type=CHAR) == ECA_NORMAL
        assert peer.put(ioc.pv("DAQ:ConfigApply"), 1) == ECA_NORMAL
        assert peer.text(ioc.pv("DAQ:CfgDetectorType_RBV")) == "moench"
        assert ioc.daq.snapshot.config.detector_type == "moench"


def everything_but_the_command(ioc: IocThread) -> dict[str, tuple[Any, Any]]:
    """Return value and alarm of every setpoint and its readback, from inside: what no client could miss."""
    names = {row.pv("") for row in setpoints()}
    names |= {f"{name}_RBV" for name in names}
    records = ioc.ioc.records
    return {
        name: (record.value, record.alarm)
        for name in sorted(names)
        if (record := records.get(ioc.pv(name))) is not None
    }


@pytest.mark.parametrize("text", [LONG_TEXT, "/" + "/".join(["x" * 99] * 10)], ids=["utf-8", "ascii"])
@pytest.mark.parametrize("name", ["DAQ:OutputFile", "HDF1:FilePath", "HDF1:XMLFileName"])
def test_a_thousand_characters_are_kept_whole(ioc: IocThread, peer: EpicsPeer, name: str, text: str) -> None:
    assert 850 < len(text.encode()) < 1023
    assert peer.put(ioc.pv(name), list(text.encode()), as_type=CHAR) == ECA_NORMAL
    assert bytes(peer.get(ioc.pv(name))).rstrip(b"\0").decode() == text
    assert bytes(peer.get(ioc.pv(f"{name}_RBV"))).rstrip(b"\0").decode().rstrip("/") == text


def test_a_text_of_1024_bytes_is_refused_and_one_of_1023_is_not(ioc: IocThread, peer: EpicsPeer) -> None:
    longest = "/" + "/".join(["x" * 127] * 8)[:1022]
    assert len(longest) == 1023
    assert peer.put(ioc.pv("DAQ:OutputFile"), list(longest.encode()), as_type=CHAR) == ECA_NORMAL
    before = everything_but_the_command(ioc)
    assert peer.put(ioc.pv("DAQ:OutputFile"), list((longest + "y").encode()), as_type=CHAR) != ECA_NORMAL
    assert everything_but_the_command(ioc) == before


def test_a_run_goes_into_a_file_with_a_path_of_a_thousand_characters(service: Service) -> None:
    folder = Path(service.output)
    while len(str(folder)) < 900:
        folder /= "Mößbauer " + "x" * 80
    folder.mkdir(parents=True)
    path = str(folder / ("y" * (1000 - 4 - len(str(folder))) + ".h5"))
    assert len(path) == 1000
    daq = service.prefix + "DAQ:"
    with EpicsPeer(service.ca_port) as peer, EpicsPeer(service.ca_port) as watcher:
        watcher.monitor(daq + "AcqState_RBV")
        assert peer.put(daq + "OutputFile", list(path.encode()), as_type=CHAR) == ECA_NORMAL
        assert peer.put(daq + "NImages", 2) == ECA_NORMAL
        peer.send_put(daq + "WriteSync", 1)
        watcher.wait_for(daq + "AcqState_RBV", "WAITING_IMAGES")
        service.simulator().send(2, rate_hz=50)
        assert peer.put_status() == ECA_NORMAL
        for name in ("DAQ:AcqOutputFile_RBV", "DAQ:Log1:OutputFile_RBV", "HDF1:FullFileName_RBV"):
            assert bytes(peer.get(service.prefix + name)).rstrip(b"\0").decode() == path
    with h5py.File(path) as file:
        assert len(file["entry/data/data"]) == 2
