"""Fixtures for tests against the whole program: a running service, and a way to start one with options."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numba
import pytest
from hypothesis import settings

from tests.processes.service import JUNGFRAU_2, Service

StartService = Callable[..., Service]

# A slow day is no failure: pytest's timeout is the limit. A failure prints what repeats it.
settings.register_profile("facts", deadline=None, print_blob=True)
settings.load_profile("facts")


def pytest_configure() -> None:
    """Take back what nohup, or a shell, has its jobs ignore: a service would go on ignoring it."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum is signal.SIGINT else signal.SIG_DFL)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels before the workers begin: no test's time is for that, nor each worker's.

    A run without workers is often of one test that needs none; with NUMBA_DISABLE_JIT there are none.
    """
    with_workers = session.config.getoption("numprocesses", None) and not session.config.option.collectonly
    if with_workers and not numba.config.DISABLE_JIT:
        subprocess.run([sys.executable, "-m", "ioc", "compile"], cwd=session.config.rootpath, check=True)
        importlib.import_module("tests.assembly.assembler")


@pytest.fixture(scope="module")
def module_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests of a module; use `service`, which leaves it as it was found."""
    service = Service(tmp_path_factory.mktemp("service"), JUNGFRAU_2, {})
    try:  # it may take longer to start than a test may
        service.start()
        yield service
    finally:
        service.discard()


@pytest.fixture
def service(module_service: Service) -> Iterator[Service]:
    """A running service of two Jungfrau modules: READY, with the config it was started with.

    For tests that neither end it nor break it; those use `start_service`.
    """
    module_service.reset()
    yield module_service
    assert module_service.running, f"the service ended during the test; its log:\n{module_service.log()}"


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start services of your own: ``start_service(overwrite=True, detector=EIGER)``; ended after the test."""
    started: list[Service] = []

    def start(detector: Mapping[str, Any] = JUNGFRAU_2, **options: Any) -> Service:
        folder = tmp_path / f"service{len(started)}"
        folder.mkdir()
        service = Service(folder, detector, options)
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.discard()
