"""Fixtures for tests of Channel Access: an IOC, a simulated DAQ behind it, two clients of the C library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ioc.access.control import AccessControl
from tests.channel_access.access_pair import READ_ONLY, Pair, config
from tests.channel_access.epics_peer import EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.channel_access.soft_ioc import SoftIoc


@pytest.fixture(scope="module")
def module_ioc() -> Iterator[IocThread]:
    with IocThread(config()) as ioc:
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    file = tmp_path_factory.mktemp("access") / "site.acf"
    file.write_text(READ_ONLY)
    with IocThread(config(), access=AccessControl(file)) as ours, SoftIoc(ours.prefix, file) as theirs:
        yield Pair(file, ours, theirs)
