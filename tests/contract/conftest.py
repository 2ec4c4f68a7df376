"""Fixtures for tests of Channel Access: an IOC, a simulated DAQ behind it, two clients of the C library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daq_core.config import DaqConfig
from tests.epics_peer import EpicsPeer
from tests.ioc_thread import IocThread
from tests.service import JUNGFRAU_2


@pytest.fixture(scope="module")
def module_ioc() -> Iterator[IocThread]:
    with IocThread(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as ioc:
        yield ioc


@pytest.fixture(scope="module")
def module_peers(module_ioc: IocThread) -> Iterator[tuple[EpicsPeer, EpicsPeer]]:
    with EpicsPeer(module_ioc.ca_port) as first, EpicsPeer(module_ioc.ca_port) as second:
        yield first, second


@pytest.fixture
def ioc(module_ioc: IocThread) -> IocThread:
    """An idle IOC."""
    module_ioc.do(module_ioc.daq.stop())
    return module_ioc


@pytest.fixture
def peer(module_peers: tuple[EpicsPeer, EpicsPeer]) -> EpicsPeer:
    return module_peers[0]


@pytest.fixture
def other(module_peers: tuple[EpicsPeer, EpicsPeer]) -> EpicsPeer:
    return module_peers[1]
