"""An alias is its PV by another name, to a C client; --list-pvs tells the names and starts nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ioc.site.aliases import pv_names
from tests.channel_access.epics_peer import EpicsPeer
from tests.conftest import StartService


def test_an_alias_is_read_put_and_monitored_like_its_pv(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "aliases.csv"
    file.write_text("SITE:IMAGES,DAQ:NImages\nSITE:FILE,DAQ:OutputFile\nSITE:RATE,DAQ:DetImagesPerSec_RBV\n")
    service = start_service(alias_file=file)
    with EpicsPeer(service.ca_port) as peer:
        peer.monitor("SITE:IMAGES")
        assert peer.put(service.prefix + "DAQ:NImages", 7) == 1
        peer.wait_for("SITE:IMAGES", 7)
        assert peer.put("SITE:IMAGES", 9) == 1
        assert peer.get(service.prefix + "DAQ:NImages_RBV") == 9
        assert peer.put("SITE:FILE", "relative.h5") != 1
        assert peer.text("SITE:RATE.EGU") == "Hz"
        assert peer.text("SITE:RATE.NAME") == service.prefix + "DAQ:DetImagesPerSec_RBV"
        ours, first = peer.info("SITE:RATE"), peer.info(service.prefix + "DAQ:DetImagesPerSec_RBV")
        assert [ours[k] for k in ("type", "count", "units", "precision")] == [
            first[k] for k in ("type", "count", "units", "precision")
        ]


def test_curly_brackets_in_prefix_and_alias_are_legal_names(
    start_service: StartService, tmp_path: Path
) -> None:
    """A whole facility's names have them."""
    file = tmp_path / "aliases.csv"
    file.write_text("XF:31IDA-ES{Det:1-File}Stop,DAQ:Stop\nXF:31IDA-ES{Det:1}N,DAQ:NImages\n")
    service = start_service(alias_file=file, prefix="XF:31IDA-OP{Det:1}")
    with EpicsPeer(service.ca_port) as peer:
        assert peer.put("XF:31IDA-OP{Det:1}DAQ:NImages", 7) == 1
        assert peer.get("XF:31IDA-ES{Det:1}N") == 7
        assert peer.text("XF:31IDA-OP{Det:1}DAQ:State_RBV") == "READY"
        assert peer.text("XF:31IDA-OP{Det:1}DAQ:State_RBV.NAME") == "XF:31IDA-OP{Det:1}DAQ:State_RBV"
        assert peer.put("XF:31IDA-ES{Det:1-File}Stop", 1) == 1


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    return run("--config", "/none.json", "--prefix", "X02DA:", *options)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ioc", "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_list_pvs_prints_all_names_and_aliases_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "aliases.csv"
    file.write_text("SITE:STOP,DAQ:Stop\n")
    done = serve("--alias-file", str(file), "--list-pvs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*pv_names("X02DA:"), "SITE:STOP"]
    assert not done.stderr


def test_list_pvs_needs_nothing_else() -> None:
    done = run("--list-pvs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == pv_names("")


@pytest.mark.parametrize("given", [("--prefix", "X:"), ("--config", "/none.json")])
def test_a_service_needs_config_and_prefix(given: tuple[str, str]) -> None:
    done = run(*given)
    missing = ({"--config", "--prefix"} - set(given)).pop()
    assert done.returncode == 2
    assert f"{missing} is missing; STD_DAQ_" in done.stderr


def test_a_wrong_alias_ends_the_start_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "aliases.csv"
    file.write_text("SITE:STOP,DAQ:Nothing\n")
    done = serve("--alias-file", str(file))
    assert done.returncode == 2
    assert done.stderr == (
        f"std-daq-ioc: {file}, line 1: there is no PV DAQ:Nothing; see `std-daq-ioc serve --list-pvs`.\n"
    )
