"""IPv6 is refused by its name, and a multicast group too: before anything is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ioc.channel_access import environment
from tests.processes.service import JUNGFRAU_2


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "detector.json"
    file.write_text(json.dumps(JUNGFRAU_2 | {"start_udp_port": 30100}))
    return file


def refused(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ioc", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("address", ["::1", "::", "[::1]", "2001:db8::7", "fe80::1%lo", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("option", ["--bind", "--udp-host"])
def test_serve_refuses_an_address_of_ipv6_and_names_it(config: Path, option: str, address: str) -> None:
    said = refused("serve", "--config", config, "--prefix", "T:", "--output-root", "/", option, address)
    assert option in said
    assert f"{address} is an IPv6 address" in said
    assert "IPv4" in said


@pytest.mark.parametrize(
    "command", [["simulate", "--host"], ["record", "folder", "--udp-host"], ["doctor", "--bind"]]
)
def test_the_other_commands_do_so_too(config: Path, command: list[str]) -> None:
    assert "::1 is an IPv6 address" in refused(*command, "::1", "--config", config)


@pytest.mark.parametrize("group", ["239.1.2.3", "224.0.0.1", "ff02::1"])
@pytest.mark.parametrize("command", [["serve", "--prefix", "T:"], ["record", "folder"], ["doctor"]])
def test_a_multicast_group_is_refused_as_it_would_not_be_joined(
    config: Path, command: list[str], group: str
) -> None:
    said = refused(*command, "--config", config, "--udp-host", group)
    assert f"{group} is a multicast group, which is not joined" in said


def test_senders_of_ipv6_cannot_be_listed(config: Path) -> None:
    said = refused("serve", "--config", config, "--prefix", "T:", "--udp-sources", "2001:db8::/32")
    assert "IPv6" in said


def test_beacons_go_to_nobody_by_ipv6(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPICS_CAS_BEACON_ADDR_LIST", "::1 10.1.2.255:5075")
    monkeypatch.setenv("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO")
    assert environment.beacon_addresses("10.1.2.3") == [("10.1.2.255", 5075)]
    assert "::1 is an IPv6 address" in caplog.text
