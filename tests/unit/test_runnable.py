"""What of a config can be known before it runs: ports, and who has them; open files; rights."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.linux.port_holders import holder_of
from daq_core.pipeline.runnable import check_runnable
from ioc.program.doctor.command import EXAMPLE
from ioc.program.ports import LOOPBACK, free_ports


@pytest.fixture
def held() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, 0))
        yield occupant.getsockname()[1]


def config(first_port: int, n_modules: int = 1) -> DaqConfig:
    positions = {str(m): [0, 8 * m, 1023, 8 * m + 7] for m in range(n_modules)}
    rows = {"image_pixel_height": 8 * n_modules, "image_pixel_width": 1024, "module_positions": positions}
    small = {"detector_type": "jungfrau", "bit_depth": 16, "n_modules": n_modules, "ram_buffer_gb": 0.001}
    return DaqConfig.parse(EXAMPLE | rows | small | {"start_udp_port": first_port})


def test_a_config_whose_ports_are_free_passes() -> None:
    check_runnable(config(free_ports(3, socket.SOCK_DGRAM), n_modules=3), LOOPBACK)


def test_a_held_port_is_named_with_the_process_that_holds_it(held: int) -> None:
    with pytest.raises(Unavailable) as refused:
        check_runnable(config(held), LOOPBACK)
    name = Path("/proc/self/comm").read_text().strip()
    assert f"UDP port {held} on {LOOPBACK} cannot be opened" in str(refused.value)
    assert f"held by {name} (process {os.getpid()})" in str(refused.value)
    assert "change start_udp_port" in str(refused.value)


def test_a_port_that_the_receiver_in_use_gives_back_is_free(held: int) -> None:
    check_runnable(config(held), LOOPBACK, own_ports=[held])


def test_a_port_that_a_socket_of_ipv6_holds_is_named_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as occupant:
        try:
            occupant.bind(("::", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error.strerror}")
        with pytest.raises(Unavailable, match=rf"\(process {os.getpid()}\)"):
            check_runnable(config(occupant.getsockname()[1]), "0.0.0.0")


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(Unavailable, match="this machine has no such address; see --udp-host"):
        check_runnable(config(50_000), "192.0.2.1")


def test_an_address_of_ipv6_is_told() -> None:
    with pytest.raises(Unavailable, match="that is no IPv4 address; see --udp-host"):
        check_runnable(config(50_000), "::1")


def test_more_ports_than_open_files_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = free_ports(100, socket.SOCK_DGRAM)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        with pytest.raises(Unavailable, match=r"100 UDP ports need 164 open files, .* may have 150"):
            check_runnable(config(first, n_modules=100), LOOPBACK)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_that_needs_root_is_told_who_may_open_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("becomes another user: run the tests as root")
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("here everybody may open any port (net.ipv4.ip_unprivileged_port_start)")
    program = f"""
import os
from tests.unit.test_runnable import LOOPBACK, check_runnable, config
check_runnable(config({free_ports(1, socket.SOCK_DGRAM)}), LOOPBACK)  # loads all, before nobody may read it
os.setgroups([]); os.setgid(65534); os.setuid(65534)
check_runnable(config({first - 1}), LOOPBACK)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "need root or CAP_NET_BIND_SERVICE" in done.stderr.splitlines()[-1]


UDP_TABLE = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n"
    "  12: 0100007F:C3B4 00000000:0000 07 00000000:00000000 00:00000000 00000000 54321        0 777 2 0 0\n"
)


def test_of_a_program_that_we_may_not_look_into_the_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/udp").write_text(UDP_TABLE)
    assert holder_of(0xC3B4, tmp_path) == "a program of user 54321"
    assert holder_of(0xC3B5, tmp_path) == ""


@pytest.mark.parametrize("text", ["", "\n\n", "x\ny", UDP_TABLE[:-20]])
def test_a_table_of_another_form_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/udp").write_text(text)
    assert holder_of(0xC3B4, tmp_path) in ("", "a program of user 54321")
