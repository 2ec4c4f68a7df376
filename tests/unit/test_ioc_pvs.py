"""The PV table: complete, consistent with itself, and with the list of agreed names."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from ioc.pvs import PVS
from ioc.rows import MACROS, Row

AGREED = Path(__file__).parents[2].parent / "shared" / "pvs.csv"
OURS = {"DAQ:Warning_RBV", "DAQ:InvalidPixels_RBV", "DAQ:MismatchedImages_RBV"}
OURS |= {"DAQ:PacketsUnplaced_RBV", "DAQ:IdRestarts_RBV"}  # beyond what was agreed


@pytest.fixture(scope="module")
def agreed() -> dict[str, dict[str, str]]:
    if not AGREED.exists():
        pytest.skip(f"the list of agreed PVs is not here: {AGREED}")
    with AGREED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["prefix"].removeprefix("$(P)$(").replace(")", "").partition("=")[2] + row["name"]: row
        for row in rows
    }


def test_names_are_unique() -> None:
    assert [name for name, n in Counter(row.pv("") for row in PVS).items() if n > 1] == []


@pytest.mark.parametrize("row", PVS, ids=lambda row: row.pv(""))
def test_a_row_fits_into_an_epics_record(row: Row) -> None:
    assert len(row.description.encode()) <= 40
    assert len(row.egu) <= 7
    assert len(row.pv("X" * 20)) <= 60
    assert len(row.choices) == len(row.severities) <= 16
    assert all(len(choice) <= 25 for choice in row.choices)
    assert row.macro in MACROS


def test_every_agreed_pv_is_served(agreed: dict[str, dict[str, str]]) -> None:
    names = {row.pv("") for row in PVS}
    assert sorted(name for name in agreed if name.startswith("DAQ:") and name not in names) == []


@pytest.mark.parametrize("row", [r for r in PVS if r.pv("") not in OURS], ids=lambda row: row.pv(""))
def test_a_pv_is_as_agreed(agreed: dict[str, dict[str, str]], row: Row) -> None:
    wanted = agreed[row.pv("")]
    states = "|".join(
        f"{choice}:{severity}" if severity else choice
        for choice, severity in zip(row.choices, row.severities, strict=True)
    )
    assert row.record == wanted["record"]
    assert str(row.nelm) == wanted["nelm"]
    assert row.egu == wanted["egu"]
    assert str(row.precision or 0) == (wanted["prec"] or "0")
    assert (row.put is not None) == (wanted["access"] != "RO")
    if not row.name.startswith("Log") or not row.name.endswith(":State_RBV"):
        assert states == wanted["enum"]  # a log entry shows how its run ended, not the state of the DAQ
