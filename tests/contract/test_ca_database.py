"""``db/daq.template`` in a C IOC and our own server are the same PVs to a Channel Access client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ioc.ports import channel_access_environment, free_ports
from ioc.pvs import PVS
from tests.epics_peer import ROOT, EpicsPeer
from tests.ioc_thread import IocThread

TEMPLATE = ROOT / "db/daq.template"
COMPARED = ("type", "count", "units", "precision", "enum_strs", "lower_ctrl_limit", "upper_ctrl_limit")


@pytest.fixture(scope="module")
def c_ioc(module_ioc: IocThread) -> Iterator[EpicsPeer]:
    """A client of a C soft IOC that loaded the template with our IOC's prefix."""
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
        with EpicsPeer(port) as peer:
            yield peer
    finally:
        process.communicate(timeout=20)


def test_a_c_ioc_serves_the_same_pvs(ioc: IocThread, peer: EpicsPeer, c_ioc: EpicsPeer) -> None:
    for row in PVS:
        name = row.pv(ioc.prefix)
        ours, theirs = peer.info(name), c_ioc.info(name)
        assert {k: ours.get(k) for k in COMPARED} == {k: theirs.get(k) for k in COMPARED}, name


@pytest.mark.parametrize(
    "field",
    [
        *("DAQ:State_RBV.DESC", "DAQ:State_RBV.TWST", "DAQ:State_RBV.TWSV", "DAQ:State_RBV.NAME"),
        *("DAQ:OutputFile.NELM", "DAQ:OutputFile.FTVL", "DAQ:CfgModuleIds.FTVL", "DAQ:OutputFile.RTYP"),
        *("DAQ:DetMBytesPerSec_RBV.EGU", "DAQ:DetMBytesPerSec_RBV.PREC", "DAQ:DiskFree_RBV.LOLO"),
        *("DAQ:DiskFree_RBV.LLSV", "DAQ:Busy_RBV.ONAM", "DAQ:ConfigPending_RBV.OSV", "DAQ:NImages.DRVL"),
        *("IOC:RedisConnected_RBV.ZSV", "DAQ:AcqProgress_RBV.HOPR", "DAQ:State_RBV.TWVL"),
    ],
)
def test_a_field_is_what_a_c_ioc_says(ioc: IocThread, peer: EpicsPeer, c_ioc: EpicsPeer, field: str) -> None:
    assert peer.text(ioc.pv(field)) == c_ioc.text(ioc.pv(field))
