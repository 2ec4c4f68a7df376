"""The files of ``db/``: what is committed is what the table gives, and they name no PV that is not there."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ioc.program.database import NO_PREFIX
from ioc.program.main import app
from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS, Row
from ioc.service.autosave import SETTINGS
from ioc.site.database import FILES
from ioc.site.operations import has_alarm
from ioc.site.reference import reference
from ioc.site.screen import WIDTH, height, placed

ROOT = Path(__file__).parents[2]
NAMES = {row.pv("X:"): row for row in PVS}
NAMED = re.compile(r"X:[A-Za-z0-9]+:[A-Za-z0-9_:]+")
COMMANDS = {"WriteAsync", "WriteSync", "Stop", "ConfigApply", "ConfigRevert", "READACF"} | {
    *("Acquire", "AcquireBusy", "Capture", "WriteFile", "FlushNow")
}


def text(name: str) -> str:
    return FILES[name]("X:")


def names_in(name: str) -> list[str]:
    """Return the PVs that a file names, its macros expanded with prefix X: and their defaults."""
    expanded = re.sub(r"\$[({]P[)}]", "X:", (ROOT / "db" / name).read_text(encoding="utf-8"))
    for macro, part in MACROS.items():
        expanded = expanded.replace(f"$({macro}={part})", part)
    return NAMED.findall(expanded)


@pytest.mark.parametrize("name", FILES)
def test_what_is_committed_is_what_the_table_gives(name: str) -> None:
    committed = (ROOT / "db" / name).read_text(encoding="utf-8")
    assert committed == FILES[name](NO_PREFIX), "run `make db`"


def test_the_page_of_all_pvs_is_what_the_table_gives() -> None:
    assert (ROOT / "docs/reference/pvs.md").read_text(encoding="utf-8") == reference(NO_PREFIX), (
        "run `make db`"
    )


def test_the_page_says_when_a_pv_is_in_alarm() -> None:
    lines = {line.split("|")[1].strip(" `"): line.split("|")[-2].strip() for line in page_rows()}
    assert lines["DAQ:DiskFree_RBV"] == "MAJOR ≤ 1, MINOR ≤ 10"
    assert lines["DAQ:RingUsed_RBV"] == "MINOR ≥ 70, MAJOR ≥ 90, down"
    assert lines["DAQ:KernelDrops_RBV"] == "by rule, down"
    assert lines["DAQ:NImages"] == ""


def page_rows() -> list[str]:
    return [line for line in reference(NO_PREFIX).splitlines() if line.startswith("| `")]


def test_every_file_of_the_folder_is_made() -> None:
    assert {path.name for path in (ROOT / "db").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"daq.acf", "daq.substitutions", "pvlist"}))
def test_every_name_in_a_file_is_a_pv(name: str) -> None:
    found = names_in(name)
    assert len(found) > 10, f"{name} names hardly any PV"
    assert not set(found) - set(NAMES), name


def test_the_template_has_a_record_for_every_pv() -> None:
    assert sorted(names_in("daq.template")) == sorted(NAMES)


def test_the_substitutions_expand_the_template_to_all_pvs() -> None:
    pattern, values = re.findall(r"\{ ([^{}]+) \}", text("daq.substitutions"))
    macros = dict(zip(pattern.split(", "), re.findall('"([^"]*)"', values), strict=True))
    assert macros == {"P": "X:", **MACROS}
    expanded = re.sub(r"\$\((\w+)(?:=[^)]*)?\)", lambda found: macros[found[1]], text("daq.template"))
    assert re.findall(r'^record\(\w+, "([^"]+)"\)', expanded, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", ["alarm.xml", "daq.bob", "daq.ui"])
def test_a_screen_and_the_alarms_are_xml_in_which_no_name_comes_twice(name: str) -> None:
    widgets = [e for e in ET.parse(ROOT / "db" / name).iter() if e.tag in ("widget", "pv")]
    names = [widget.get("name") or widget.findtext("name") for widget in widgets]
    assert len(names) == len(set(names)) > 10


def test_the_gateway_lets_every_pv_pass_and_no_other() -> None:
    patterns = [line.split()[0] for line in text("pvlist").splitlines() if line.endswith(" ALLOW")]
    for name in NAMES:
        assert any(re.fullmatch(pattern, name) for pattern in patterns), name
    assert not any(re.fullmatch(pattern, "X:MOTOR:VAL") for pattern in patterns)


def test_the_archiver_gets_no_json_text_and_no_setpoint() -> None:
    lines = [line.split("\t") for line in text("archive.txt").splitlines() if not line.startswith("#")]
    assert {method for _, _, method in lines} == {"SCAN", "MONITOR"}
    assert all(float(period) > 0 for _, period, _ in lines)
    for name, _, _ in lines:
        assert "Json" not in name
        assert NAMES[name].put is None


def test_what_is_saved_is_what_the_service_restores() -> None:
    assert names_in("daq_settings.req") == [row.pv("X:") for row in SETTINGS]
    assert all(row.put is not None and row.record != "busy" for row in SETTINGS)


def test_no_command_is_saved() -> None:
    saved = {NAMES[name].name for name in names_in("daq_settings.req")}
    assert not saved & COMMANDS
    assert {"NImages", "FilePath", "NumCapture"} <= saved


def alarm_pvs() -> Iterator[Row]:
    for pv in ET.fromstring(text("alarm.xml")).iter("pv"):
        assert pv.findtext("description")
        yield NAMES[pv.attrib["name"]]


def test_the_alarm_server_watches_whatever_can_be_in_alarm() -> None:
    watched = list(alarm_pvs())
    assert all(has_alarm(row) for row in watched)
    assert {"State_RBV", "AcqState_RBV", "DroppedImages_RBV", "DiskFree_RBV"} <= {row.name for row in watched}
    assert len(watched) == len({row.pv("X:") for row in watched})


def test_a_capture_that_goes_on_is_no_alarm_for_the_operators() -> None:
    """areaDetector's readbacks are MINOR while they are busy; in an alarm tree that is noise all day."""
    busy = {row.name for row in PVS if row.record == "bi" and row.name in ("Acquire_RBV", "Capture_RBV")}
    assert len(busy) == 2
    assert not busy & {row.name for row in alarm_pvs()}


def test_the_screens_show_the_same_pvs() -> None:
    shown = {f"X:{item.pv}" for item in placed() if item.pv}
    assert set(names_in("daq.bob")) == shown
    assert set(names_in("daq.ui")) == shown


def test_nothing_on_the_screen_overlaps_or_leaves_it() -> None:
    items = [item for item in placed() if item.kind != "frame"]
    for n, a in enumerate(items):
        assert 0 <= a.x < a.x + a.width <= WIDTH
        assert 0 <= a.y < a.y + a.height <= height()
        for b in items[n + 1 :]:
            beside = a.x + a.width <= b.x or b.x + b.width <= a.x
            assert beside or a.y + a.height <= b.y or b.y + b.height <= a.y, (a, b)


def test_what_is_put_on_the_screen_can_be_put() -> None:
    for item in placed():
        if item.kind in ("entry", "menu", "button"):
            assert NAMES[f"X:{item.pv}"].put is not None, item


def test_with_a_prefix_no_file_but_the_template_needs_a_macro(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["db", "--output", str(tmp_path / "new"), "--prefix", "X02DA:"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(FILES)
    for name in ("archive.txt", "alarm.xml", "pvlist", "daq.ui"):
        made = (tmp_path / "new" / name).read_text(encoding="utf-8")
        assert "X02DA:" in made
        assert "$" not in made, name
    assert '{ "X02DA:", "DAQ:"' in (tmp_path / "new/daq.substitutions").read_text(encoding="utf-8")
