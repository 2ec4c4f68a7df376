"""Bad input on Channel Access, against the whole program: the put says no and why, and nothing changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.processes.service import Service

DOUBLE = 6  # DBR_DOUBLE, where the client would convert


@pytest.fixture(scope="module")
def peer(module_service: Service) -> Iterator[EpicsPeer]:
    with EpicsPeer(module_service.ca_port) as peer:
        yield peer


@pytest.fixture
def service(service: Service, peer: EpicsPeer) -> Iterator[Service]:
    """The running service; after the test, its state, config, log and folder are as before."""
    before = service.everything_shown()
    yield service
    peer.put(service.prefix + "DAQ:ConfigRevert", 1)
    assert service.everything_shown() == before


def assert_refused(
    service: Service, peer: EpicsPeer, name: str, value: object, reason: str, **how: Any
) -> None:
    """Demand that a put fails, that the command PVs say so with the reason, and that the PV stays."""
    daq = service.prefix + "DAQ:"
    before, rejected = peer.text(daq + name), peer.get(daq + "CmdRejected_RBV")
    assert peer.put(daq + name, value, **how) != ECA_NORMAL
    assert peer.text(daq + name) == before
    assert peer.get(daq + "CmdRejected_RBV") == rejected + 1
    assert peer.text(daq + "CmdStatus_RBV") == "Rejected"
    assert reason in peer.text(daq + "CmdMessage_RBV")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a.h5", "Path must be absolute"),
        ("", "Path must be absolute"),
        ("/tmp/../a.h5", "must not contain '..'"),
        ("/tmp/a\n.h5", "control character"),
        ("/tmp/", "must name a file"),
        pytest.param("/" + 300 * "x", "255", id="a part of 300 bytes"),
    ],
)
def test_a_path_that_cannot_be_is_refused(service: Service, peer: EpicsPeer, path: str, reason: str) -> None:
    assert_refused(service, peer, "OutputFile", path, reason)


@pytest.mark.parametrize("n_images", [0, -1, 2**31, 1e18, 10.5, math.nan, math.inf])
def test_a_number_of_images_that_is_none_is_refused(
    service: Service, peer: EpicsPeer, n_images: float
) -> None:
    assert_refused(service, peer, "NImages", n_images, "NImages", as_type=DOUBLE)


@pytest.mark.parametrize("run_id", ["a\nb", "\x7f"], ids=ascii)
def test_a_run_id_that_is_none_is_refused(service: Service, peer: EpicsPeer, run_id: str) -> None:
    assert_refused(service, peer, "RunId", run_id, "Invalid run_id=")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("OUT/none/a.h5", "Output file folder OUT/none does not exist. Please create it first."),
        ("OUT", "There is a folder of that name."),
        ("/dev/null", "Output file folder /dev"),
        ("/proc/a.h5", "Output file folder /proc"),
    ],
)
@pytest.mark.parametrize("command", ["WriteAsync", "WriteSync"])
def test_a_start_that_cannot_be_is_refused(
    service: Service, peer: EpicsPeer, command: str, path: str, reason: str
) -> None:
    daq, out = service.prefix + "DAQ:", str(service.output)
    assert peer.put(daq + "OutputFile", path.replace("OUT", out)) == ECA_NORMAL
    assert peer.put(daq + "NImages", 1) == ECA_NORMAL
    assert_refused(service, peer, command, 1, reason.replace("OUT", out))


def test_a_start_onto_an_existing_file_is_refused_and_the_file_stays(
    service: Service, peer: EpicsPeer
) -> None:
    daq, path = service.prefix + "DAQ:", service.output / "there.h5"
    path.write_text("mine")
    try:
        assert peer.put(daq + "OutputFile", str(path)) == ECA_NORMAL
        assert_refused(service, peer, "WriteSync", 1, "exists already")
        assert path.read_text() == "mine"
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("setpoints", "reason"),
    [
        ({"CfgModulePositions": [0, 0, 1023, 511]}, "four are needed for each"),
        ({"CfgModuleIds": [0, 0]}, "names a module twice"),
        ({"CfgModulePositions": [0, 0, 1023, 511, 0, 1, 1023, 512]}, "overlaps"),
        ({"CfgModulePositions": [1, 0, 1024, 511, 0, 512, 1023, 1023]}, "module 0"),
        ({"CfgNModules": 1}, "n_modules is 1"),
        ({"CfgBitDepth": 32}, "bit_depth 32"),
        ({"CfgDetectorType": 1}, "GigaFRoST"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_config_that_cannot_be_is_refused_when_it_is_applied(
    service: Service, peer: EpicsPeer, setpoints: dict[str, Any], reason: str
) -> None:
    daq = service.prefix + "DAQ:"
    for name, value in setpoints.items():
        assert peer.put(daq + name, value) == ECA_NORMAL
    assert_refused(service, peer, "ConfigApply", 1, reason)
