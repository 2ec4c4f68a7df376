"""The PV table: complete, consistent with itself, and with the list of agreed names."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from daq_core.detectors import FORMATS
from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS, Row

AGREED = Path(__file__).with_name("agreed_pvs.csv")
"""What clients, screens and scripts at beamlines rely on; written by hand, not made from the table."""


@pytest.fixture(scope="module")
def agreed() -> dict[str, dict[str, str]]:
    with AGREED.open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


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


def test_the_served_pvs_are_the_agreed_ones(agreed: dict[str, dict[str, str]]) -> None:
    served = {row.pv("") for row in PVS}
    assert sorted(agreed.keys() - served) == [], "clients may rely on these"
    assert sorted(served - agreed.keys()) == [], (
        f"add them to {AGREED.name}: from now on clients rely on them"
    )


@pytest.mark.parametrize("row", PVS, ids=lambda row: row.pv(""))
def test_a_pv_is_as_agreed(agreed: dict[str, dict[str, str]], row: Row) -> None:
    ours = {
        "name": row.pv(""),
        "record": row.record,
        "nelm": str(row.nelm),
        "egu": row.egu,
        "precision": str(row.precision),
        "states": "|".join(
            f"{choice}:{severity}" if severity else choice
            for choice, severity in zip(row.choices, row.severities, strict=True)
        ),
        "access": row.access,
        "limits": " ".join(
            f"{name.upper()} {value:g}"
            for name in ("lolo", "low", "high", "hihi")
            if (value := getattr(row.limits, name)) is not None
        ),
    }
    wanted = dict(agreed[row.pv("")])
    if row.name in ("CfgDetectorType", "CfgDetectorType_RBV"):  # a new detector stands at the end
        known = wanted["states"].split("|")
        wanted["states"] = "|".join([*known, *(name for name in FORMATS if name not in known)])
    assert ours == wanted
