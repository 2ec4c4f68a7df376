"""Setpoints outlive the IOC, as the C Channel Access library sees it; commands do not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daq_core.config import DaqConfig
from ioc.service import autosave
from ioc.service.autosave import SETTINGS, Autosave
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import JUNGFRAU_2

CONFIG = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


@contextmanager
def served(state_dir: Path, *, fresh: bool = False) -> Iterator[tuple[IocThread, EpicsPeer]]:
    """Start an IOC that keeps its setpoints in a folder, and a client."""
    with (
        IocThread(CONFIG, autosave=Autosave(state_dir, fresh=fresh)) as ioc,
        EpicsPeer(ioc.ca_port) as peer,
    ):
        yield ioc, peer


def saved(state_dir: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((state_dir / "settings.json").read_text())["settings"]
    return settings


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def write(state_dir: Path, settings: dict[str, Any], **more: Any) -> None:
    content = {"version": 1, "starts": 1, "settings": settings, **more}
    (state_dir / "settings.json").write_text(json.dumps(content))


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    folder, state = tmp_path / "data", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    put = {
        "DAQ:NImages": 123,
        "DAQ:LogN": 7,
        "HDF1:FilePath": f"{folder}/",
        "HDF1:FileName": "größe",
        "HDF1:FileTemplate": "%s%s_%04d.h5",
        "HDF1:FileNumber": 17,
        "HDF1:NumCapture": 0,
        "cam1:ImageMode": 2,
        "cam1:AcquireTime": 0.25,
        "cam1:WaitForPlugins": 1,
    }
    with served(state) as (ioc, peer):
        for name, value in put.items():
            wire = list(value.encode()) if isinstance(value, str) else value
            assert peer.put(ioc.pv(name), wire) == ECA_NORMAL
        eventually(lambda: saved(state)["cam1:WaitForPlugins"] == "Yes", "the last put was not saved")
        starts = peer.get(ioc.pv("IOC:START_CNT"))
    with served(state) as (ioc, peer):
        for name, value in put.items():
            if isinstance(value, str):  # pyepics takes the bytes of a text for Latin-1
                assert peer.text(ioc.pv(name)).encode("latin-1").decode() == value, name
            else:
                assert peer.get(ioc.pv(name)) == value, name
        looked_at = ioc.pv("HDF1:FilePath_RBV")
        eventually(lambda: peer.text(looked_at) == f"{folder}/", "it was not looked at")
        assert peer.text(ioc.pv("HDF1:FilePathExists_RBV")) == "Yes"
        assert peer.get(ioc.pv("IOC:START_CNT")) == starts + 1
        assert peer.text(ioc.pv("IOC:SR_status")) == "OK"
        assert peer.text(ioc.pv("IOC:SR_lastSave")).endswith("Z")


def test_a_saved_command_starts_nothing_and_a_folder_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    write(
        tmp_path,
        {
            "HDF1:CreateDirectory": -5,
            "HDF1:FilePath": f"{missing}/",
            "DAQ:OutputFile": str(tmp_path / "a.h5"),
            "DAQ:WriteAsync": "Start",
            "HDF1:Capture": "Capture",
            "cam1:Acquire": "Acquire",
            "DAQ:CfgBitDepth": 32,
        },
    )
    with served(tmp_path) as (ioc, peer):
        looked_at = ioc.pv("HDF1:FilePath_RBV")
        eventually(lambda: peer.text(looked_at) == f"{missing}/", "it was not looked at")
        assert peer.text(ioc.pv("HDF1:FilePathExists_RBV")) == "No"
        assert peer.text(ioc.pv("DAQ:AcqState_RBV")) == "NONE"
        assert peer.text(ioc.pv("DAQ:ConfigPending_RBV")) == "Clean"
        assert peer.get(ioc.pv("DAQ:CmdCount_RBV")) == 0
        assert peer.get(ioc.pv("cam1:Acquire")) == 0
    assert not missing.exists()
    assert not (tmp_path / "a.h5").exists()
    assert saved(tmp_path).keys() == {row.pv("") for row in SETTINGS} - NOT_KNOWN


NOT_KNOWN = {"cam1:Gain", "cam1:Temperature"}
"""Settings without a value until somebody puts one."""


ILLEGAL = {
    "DAQ:NImages": 0,
    "DAQ:LogN": 10.5,
    "HDF1:FilePath": "relative",
    "HDF1:FileName": "../up",
    "HDF1:FileNumber": "many",
    "HDF1:FileTemplate": "%n",
    "HDF1:QueueSize": 1 << 40,
    "cam1:NumImages": True,
    "cam1:ImageMode": "Sometimes",
    "cam1:AcquireTime": float("inf"),
    "cam1:AcquirePeriod": [1, 2],
    "cam1:NumExposures": None,
    "cam1:NoSuchPv": 1,
}


def test_what_is_not_legal_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {**ILLEGAL, "HDF1:NumCapture": 5}, version=99)
    with served(tmp_path) as (ioc, peer):
        assert peer.get(ioc.pv("HDF1:NumCapture")) == 5
        assert peer.get(ioc.pv("DAQ:NImages")) == 1
        assert peer.text(ioc.pv("cam1:ImageMode")) == "Multiple"
        assert peer.text(ioc.pv("IOC:SR_status")) == "Warning"
        assert peer.info(ioc.pv("IOC:SR_status"))["severity"] == 1
        assert "DAQ:NImages" in peer.text(ioc.pv("IOC:SR_statusStr"))
        assert peer.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Idle"  # nobody asked for what was refused
        assert peer.get(ioc.pv("DAQ:CmdRejected_RBV")) == 0
        assert peer.put(ioc.pv("DAQ:NImages"), 3) == ECA_NORMAL  # all is well from here on
        peer.monitor(ioc.pv("IOC:SR_status"))
        peer.wait_for(ioc.pv("IOC:SR_status"), "OK")
    lines = [r.getMessage() for r in caplog.records if "is not restored" in r.getMessage()]
    assert [line.split()[1] for line in lines] == list(ILLEGAL)


def test_a_file_that_cannot_be_read_is_kept_aside_and_seen(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"version": 1, "settings": {"DAQ:NIm')  # torn
    with served(tmp_path) as (ioc, peer):
        assert peer.get(ioc.pv("DAQ:NImages")) == 1
        assert peer.text(ioc.pv("IOC:SR_status")) == "Warning"
        assert peer.text(ioc.pv("IOC:SR_statusStr")) == "settings.json could not be read"
        eventually((tmp_path / "settings.json").exists, "not saved again")
    assert (tmp_path / "settings.bad.json").read_text().endswith("NIm")


def test_fresh_begins_with_the_defaults(tmp_path: Path) -> None:
    write(tmp_path, {"DAQ:NImages": 5})
    with served(tmp_path, fresh=True) as (ioc, peer):
        assert peer.get(ioc.pv("DAQ:NImages")) == 1
        assert peer.get(ioc.pv("IOC:START_CNT")) == 2
        eventually(lambda: saved(tmp_path)["DAQ:NImages"] == 1, "the defaults were not saved")


def test_all_defaults_can_be_put_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path):
        eventually((tmp_path / "settings.json").exists, "not saved")
    with served(tmp_path) as (ioc, peer):
        assert peer.text(ioc.pv("IOC:SR_statusStr")) == f"{len(SETTINGS) - len(NOT_KNOWN)} restored"
    assert "is not restored" not in caplog.text


def test_a_setting_that_had_no_value_is_kept_once_it_has_one(tmp_path: Path) -> None:
    with served(tmp_path) as (ioc, peer):
        assert peer.put(ioc.pv("cam1:Gain"), 2.5) == ECA_NORMAL
        eventually(lambda: saved(tmp_path).get("cam1:Gain") == 2.5, "it was not saved")
    with served(tmp_path) as (ioc, peer):
        assert peer.get(ioc.pv("cam1:Gain_RBV")) == 2.5


def test_many_changes_are_few_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def counted(path: Path, text: str) -> None:
        times.append(time.monotonic())
        replace_file(path, text)

    replace_file = autosave.replace_file
    monkeypatch.setattr(autosave, "replace_file", counted)
    with served(tmp_path) as (ioc, peer):
        for n in range(1, 301):
            assert peer.put(ioc.pv("DAQ:NImages"), n) == ECA_NORMAL
        eventually(lambda: saved(tmp_path)["DAQ:NImages"] == 300, "the last change was not saved")
        periods = [after - before for before, after in pairwise(times)]
    assert min(periods) > 0.99  # a second, by a clock that may differ a little


def test_a_full_disk_is_shown_and_got_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosave, "RETRY_S", 0.1)
    with served(tmp_path) as (ioc, peer):
        status, text = ioc.pv("IOC:SR_status"), ioc.pv("IOC:SR_statusStr")
        peer.monitor(status)
        eventually((tmp_path / "settings.json").exists, "not saved")
        (tmp_path / "settings.new").symlink_to("/dev/full")
        assert peer.put(ioc.pv("DAQ:NImages"), 3) == ECA_NORMAL
        peer.wait_for(status, "Error")
        assert peer.info(status)["severity"] == 2
        assert peer.text(text) == "No space left on device"
        assert saved(tmp_path)["DAQ:NImages"] == 1  # the file of before is whole
        (tmp_path / "settings.new").unlink()
        eventually(lambda: saved(tmp_path)["DAQ:NImages"] == 3, "not saved when there was space again")
        eventually(lambda: peer.text(status) == "OK", "still in alarm")


def test_a_disk_that_hangs_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosave, "SLOW_S", 0.2)
    monkeypatch.setattr(autosave, "LAST_SAVE_S", 0.2)
    os.mkfifo(tmp_path / "settings.new")  # to open it waits for a reader, who never comes
    with served(tmp_path) as (ioc, peer):
        status, beat = ioc.pv("IOC:SR_status"), ioc.pv("IOC:HEARTBEAT")
        peer.monitor(status, beat)
        peer.wait_for(status, "Error")
        assert peer.put(ioc.pv("DAQ:NImages"), 3) == ECA_NORMAL
        n_beats = len(peer.updates(beat))
        eventually(lambda: len(peer.updates(beat)) > n_beats + 1, "the loop hangs")
        assert "no answer" in peer.text(ioc.pv("IOC:SR_statusStr"))
    reader = os.open(tmp_path / "settings.new", os.O_RDONLY | os.O_NONBLOCK)  # lets the thread end
    os.close(reader)
