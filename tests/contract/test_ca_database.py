"""``db/daq.template`` in a C IOC and our own server are the same PVs to a Channel Access client."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioc.program.ports import channel_access_environment, free_ports
from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS, Row
from ioc.records.fields import STATE_WORDS
from ioc.site.database import FILES
from tests.channel_access.ca_wire import STRING, Connection
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "db/daq.template"
COMPARED = ("type", "count", "units", "precision", "enum_strs", "lower_ctrl_limit", "upper_ctrl_limit")


OF_ALL = (
    *("SEVR", "STAT", "AMSG", "UDF", "DISA", "DISV", "DISP", "DISS", "PROC", "PACT", "PINI", "PHAS", "PRIO"),
    *("SCAN", "TSE", "ACKS", "ACKT"),
)


@pytest.fixture(scope="module")
def c_port(module_ioc: IocThread) -> Iterator[int]:
    """The CA port of a C soft IOC that loaded the template with our IOC's prefix."""
    port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    process = subprocess.Popen(
        [sys.executable, "-m", "epicscorelibs.ioc", "-m", f"P={module_ioc.prefix}", "-d", str(TEMPLATE)],
        cwd=ROOT,
        env=os.environ | channel_access_environment(port) | {"EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1"},
        stdin=subprocess.PIPE,  # it ends when this closes
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def c_ioc(c_port: int) -> Iterator[EpicsPeer]:
    """A client of that C IOC."""
    with EpicsPeer(c_port) as peer:
        yield peer


def test_a_c_ioc_serves_the_same_pvs(ioc: IocThread, peer: EpicsPeer, c_ioc: EpicsPeer) -> None:
    for client in (peer, c_ioc):
        client.search(*(row.pv(ioc.prefix) for row in PVS))
    for row in PVS:
        name = row.pv(ioc.prefix)
        ours, theirs = peer.info(name), c_ioc.info(name)
        assert {k: ours.get(k) for k in COMPARED} == {k: theirs.get(k) for k in COMPARED}, name


def test_every_field_is_what_a_c_ioc_says(ioc: IocThread, c_ioc: EpicsPeer, c_port: int) -> None:
    assert c_ioc.info(PVS[0].pv(ioc.prefix))  # it is up
    names = [f"{row.pv(ioc.prefix)}.{field}" for row in PVS for field in fields(row)]
    ours, theirs = described(ioc.ca_port, names), described(c_port, names)
    for row in PVS:
        if row.record == "busy":  # no record type of EPICS Base: the template has a bo in its place
            record_type = f"{row.pv(ioc.prefix)}.RTYP"
            assert (ours.pop(record_type)[2], theirs.pop(record_type)[2]) == (b"busy", b"bo")
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}


def fields(row: Row) -> list[str]:
    """Return the fields that say what a record is, apart from its value."""
    found = ["NAME", "DESC", "RTYP"]
    if row.record in ("ai", "ao", "longin", "longout"):
        found += ["EGU", "LOPR", "HOPR", "LOLO", "LOW", "HIGH", "HIHI", "LLSV", "LSV", "HSV", "HHSV"]
    if row.record in ("ai", "ao"):
        found += ["PREC"]
    if row.record in ("ao", "longout"):
        found += ["DRVL", "DRVH"]
    if row.record == "waveform":
        found += ["FTVL", "NELM"]
    if row.record in ("bi", "bo", "busy"):
        found += ["ZNAM", "ONAM", "ZSV", "OSV"]
    if row.record in ("mbbi", "mbbo"):
        words = STATE_WORDS[: len(row.choices)]
        found += [word + kind for word in words for kind in ("ST", "VL", "SV")]
    return found


def described(port: int, names: list[str]) -> dict[str, tuple[int, int, bytes]]:
    """Return of each name what a server says: its type, its element count, its value as text."""
    found = {}
    with Connection(port) as wire:
        for some in (names[first : first + 500] for first in range(0, len(names), 500)):
            created = wire.created(some)
            values = wire.values([answer.p2 for answer in created])
            for name, answer, value in zip(some, created, values, strict=True):
                found[name] = (answer.data_type, answer.count, value.split(b"\0")[0])
    return found


def test_the_fields_of_a_value_are_of_the_types_of_a_c_ioc(
    ioc: IocThread, c_ioc: EpicsPeer, c_port: int
) -> None:
    """Values differ, as the C IOC's records are never processed; types do not."""
    (waveform,) = [row for row in PVS if row.pv("") == "DAQ:OutputFile"]
    names = [f"{waveform.pv(ioc.prefix)}.{field}" for field in ("NORD", *OF_ALL)]
    for record in ("bo", "mbbi", "stringin", "longout", "ai"):
        row = next(row for row in PVS if row.record == record)
        numeric = ("HYST", "ADEL", "MDEL") if record in ("longout", "ai") else ()
        names += [f"{row.pv(ioc.prefix)}.{field}" for field in (*OF_ALL, *numeric)]
    assert c_ioc.info(names[0])
    ours, theirs = described(ioc.ca_port, names), described(c_port, names)
    assert {name: words[:2] for name, words in ours.items()} == {
        name: words[:2] for name, words in theirs.items()
    }


@pytest.mark.parametrize("pv", ["cam1:NumImages", "cam1:AcquireTime"])
def test_a_number_as_text_means_what_it_does_to_a_c_ioc(
    ioc: IocThread, peer: EpicsPeer, c_ioc: EpicsPeer, pv: str
) -> None:
    for text in ("0x10", "0X1f", "010", " 12 ", "+7", "12.0", "0x7fffffff", "\t9"):
        for client in (peer, c_ioc):
            assert client.put(ioc.pv(pv), text, as_type=STRING) == ECA_NORMAL, text
        assert peer.get(ioc.pv(pv)) == c_ioc.get(ioc.pv(pv)), text


@pytest.mark.parametrize("file", sorted(set(FILES) - {"daq.substitutions", "pvlist"}))
def test_every_name_in_a_file_is_found(ioc: IocThread, c_ioc: EpicsPeer, c_port: int, file: str) -> None:
    """Of the two that are left, one names patterns, one the template; tests/unit/test_database.py."""
    text = re.sub(r"\$[({]P[)}]", ioc.prefix, (ROOT / "db" / file).read_text(encoding="utf-8"))
    for macro, part in MACROS.items():
        text = text.replace(f"$({macro}={part})", part)
    names = sorted(set(re.findall(rf"{ioc.prefix}[A-Za-z0-9]+:[A-Za-z0-9_:]*[A-Za-z0-9_]", text)))
    assert len(names) > (0 if file == "daq.acf" else 10)
    assert c_ioc.info(names[0])
    for port in (ioc.ca_port, c_port):
        assert len(described(port, names)) == len(names)
