"""Each of the doctor's findings, with the condition it is about made for it."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daq_core.config import DaqConfig
from daq_core.linux.sockets import BUFFER_BYTES
from ioc.program.doctor import access, memory, network, ports, processor, rights, storage
from ioc.program.doctor.command import EXAMPLE
from ioc.program.doctor.finding import Finding, Findings
from ioc.program.ports import LOOPBACK, free_ports
from tests.machine.judges import absent

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run the tests as root")


def config(**changes: object) -> DaqConfig:
    return DaqConfig.parse(EXAMPLE | changes)


def about(findings: Findings, subject: str) -> Finding:
    """Return the first finding about a subject."""
    listed = list(findings)
    return next(finding for finding in listed if finding.subject == subject)


def as_nobody(look: str) -> dict[str, Any]:
    """Return the finding that `look` gives to a user without any rights."""
    program = f"""
import dataclasses, json, os
from ioc.program.doctor import network, rights
from ioc.program.doctor.command import EXAMPLE
from daq_core.config import DaqConfig
config = DaqConfig.parse(EXAMPLE | {{"writer_user_id": 12345}})
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
print(json.dumps([dataclasses.asdict(finding) for finding in {look}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, Any] = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    return found


@contextmanager
def taken(kind: socket.SocketKind) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind((LOOPBACK, free_ports(1, kind)))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        yield holder.getsockname()[1]


# -- access ----------------------------------------------------------------------------------


def test_that_every_local_user_can_do_what_the_service_can_is_said() -> None:
    found = about(access.look_at_access(LOOPBACK, None), "who may change")
    assert found.verdict == "limits"
    assert "every user of this machine can do what the service can" in found.text
    assert "--token-file" in found.cure


def test_a_token_is_good_when_nobody_else_can_read_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o644)
    found = about(access.look_at_access(LOOPBACK, token), "who may change")
    assert (found.verdict, "open to others" in found.text) == ("problem", True)
    token.chmod(0o600)
    assert about(access.look_at_access(LOOPBACK, token), "who may change").verdict == "good"


def test_a_user_that_a_namespace_does_not_have_is_a_problem() -> None:
    program = """
import json
from dataclasses import asdict
from daq_core.config import DaqConfig
from ioc.program.doctor.command import EXAMPLE
from ioc.program.doctor.rights import look_at_rights
print(json.dumps([asdict(f) for f in look_at_rights(DaqConfig.parse(EXAMPLE | {"writer_user_id": 12345}))]))
"""
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", sys.executable, "-c", program],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        absent("userns", str(error))
    if "unshare" in done.stderr:
        absent("userns", done.stderr.strip())
    (owner,) = [found for found in json.loads(done.stdout) if found["subject"] == "file owner"]
    assert owner["verdict"] == "problem"
    assert "user 12345 does not exist in this user namespace" in owner["text"]


# -- ports -----------------------------------------------------------------------------------


def test_a_taken_port_of_the_detector_is_a_problem_and_ss_shows_by_whom() -> None:
    with taken(socket.SOCK_DGRAM) as port:
        found = about(ports.look_at_udp_ports(LOOPBACK, [port]), "detector's ports")
    assert found.verdict == "problem"
    assert str(port) in found.text
    assert f"ss -ulpn 'sport = :{port}'" in found.cure


def test_free_ports_of_the_detector_are_good() -> None:
    first = free_ports(3, socket.SOCK_DGRAM)
    found = about(ports.look_at_udp_ports(LOOPBACK, [first, first + 1, first + 2]), "detector's ports")
    assert (found.verdict, found.cure) == ("good", "")


def test_a_taken_port_of_a_face_is_a_problem_that_names_its_option() -> None:
    with taken(socket.SOCK_STREAM) as port:
        found = about(ports.look_at_faces(LOOPBACK, port, None, free_ports()), "REST port")
    assert found.verdict == "problem"
    assert "ss -tlpn" in found.cure
    assert "--rest-port" in found.cure


def test_the_file_system_of_a_folder_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    assert storage.file_system("/proc/self") == ("proc", "/proc")
    kind, mount = storage.file_system(str(tmp_path))
    assert kind != "proc"
    assert os.path.ismount(mount)
    assert tmp_path.is_relative_to(mount)


def test_an_address_of_another_machine_is_a_problem() -> None:
    found = about(ports.look_at_udp_ports("192.0.2.1", [30100]), "detector's ports")
    assert found.verdict == "problem"
    assert "cannot assign requested address" in found.text


def test_a_port_that_the_kernel_lends_out_is_a_limit() -> None:
    low, high = map(int, ports.EPHEMERAL.read_text().split())
    looks = list(ports.look_at_udp_ports(LOOPBACK, [(low + high) // 2]))
    assert looks[-1].verdict == "limits"
    assert "ip_local_reserved_ports" in looks[-1].cure
    assert len(list(ports.look_at_udp_ports(LOOPBACK, [low - 1]))) == 1


# -- the network -----------------------------------------------------------------------------


def test_the_socket_buffer_is_what_the_kernel_grants() -> None:
    found = about(network.look_at_network(LOOPBACK, 8240), "socket buffer")
    rmem_max = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert f"rmem_max {rmem_max}" in found.text
    privileged = rights.capabilities() >> rights.CAP_NET_ADMIN & 1
    assert (found.verdict == "good") == (privileged or rmem_max >= BUFFER_BYTES)


@as_root
def test_a_small_socket_buffer_is_cured_by_rmem_max() -> None:
    rmem_max = int(Path("/proc/sys/net/core/rmem_max").read_text())
    if rmem_max >= BUFFER_BYTES:
        pytest.skip("this machine's rmem_max is large enough for everybody")
    found = as_nobody('network.look_at_network("127.0.0.1", 8240)')["socket buffer"]
    assert found["verdict"] == ("problem" if rmem_max < network.LEAST_BUFFER else "limits")
    assert f"{rmem_max / 2**20:.2f} MiB" in found["text"]
    assert f"sysctl -w net.core.rmem_max={BUFFER_BYTES}" in found["cure"]


def test_more_buffers_than_the_kernel_has_memory_for_are_a_limit() -> None:
    most = int(network.UDP_MEMORY.read_text().split()[-1]) * network.PAGE_BYTES
    fitting = most // BUFFER_BYTES
    assert about(network.look_at_network(LOOPBACK, 8240, fitting), "UDP memory").verdict == "good"
    found = about(network.look_at_network(LOOPBACK, 8240, fitting + 1), "UDP memory")
    assert found.verdict == "limits"
    assert "sysctl -w net.ipv4.udp_mem=" in found.cure


def test_packets_larger_than_the_mtu_are_a_limit() -> None:
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert about(network.look_at_network(LOOPBACK, mtu - 28), "MTU").verdict == "good"
    found = about(network.look_at_network(LOOPBACK, mtu), "MTU")
    assert found.verdict == "limits"
    assert "2 pieces" in found.text
    assert f"ip link set dev lo mtu {mtu + 28}" in found.cure


def test_packets_dropped_before_the_socket_are_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    softnet = tmp_path / "softnet_stat"
    softnet.write_text("0000ffff 00000002 00000000\n0000ffff 0000000a 00000000\n")
    monkeypatch.setattr(network, "SOFTNET", softnet)
    found = about(network.look_at_network(LOOPBACK, 8240), "kernel backlog")
    assert found.verdict == "limits"
    assert "12 packets" in found.text
    assert "netdev_max_backlog" in found.cure


def test_a_detector_without_packets_needs_no_look_at_the_network() -> None:
    assert list(network.look_at_network(LOOPBACK, 0)) == []


# -- the processor ---------------------------------------------------------------------------


@pytest.mark.parametrize(("governor", "verdict"), [("powersave", "limits"), ("performance", "good")])
def test_a_governor_that_lets_cores_sleep_is_a_limit(
    governor: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text(governor + "\n")
    monkeypatch.setattr(processor, "CPU", tmp_path)
    found = about(processor.look_at_processor(), "CPU governor")
    assert found.verdict == verdict
    assert governor in found.text


def test_a_slow_clock_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = tmp_path / "current_clocksource"
    clock.write_text("hpet\n")
    monkeypatch.setattr(processor, "CLOCK", clock)
    assert about(processor.look_at_processor(), "clock").verdict == "limits"


def test_a_single_core_is_a_limit() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        found = about(processor.look_at_processor(), "cores")
    finally:
        os.sched_setaffinity(0, before)
    assert found.verdict == "limits"
    assert "share one" in found.text


@pytest.mark.parametrize(
    ("environment", "verdict", "text"),
    [
        ({"NUMBA_DISABLE_JIT": "1"}, "problem", "nothing is compiled"),
        ({"XDG_CACHE_HOME": "NEW", "NUMBA_CACHE_DIR": ""}, "limits", "not compiled yet"),
    ],
)
def test_kernels_that_are_not_compiled_are_told(
    environment: dict[str, str], verdict: str, text: str, tmp_path: Path
) -> None:
    own = {name: value.replace("NEW", str(tmp_path)) for name, value in environment.items()}
    program = (
        "from ioc.program.doctor.processor import look_at_processor as look; "
        "print(*list(look())[-1:], sep='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | own, capture_output=True, text=True, check=True
    )
    assert f"verdict='{verdict}'" in done.stdout
    assert text in done.stdout


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ram_buffer_gb", "verdict", "text"),
    [(4096, "problem", "GiB free"), (0.001, "limits", "ring of 8 images"), (0.125, "good", "127 MiB of")],
)
def test_the_ring_must_fit_and_hold_some_images(ram_buffer_gb: float, verdict: str, text: str) -> None:
    found = about(memory.look_at_memory(config(ram_buffer_gb=ram_buffer_gb)), "memory")
    assert found.verdict == verdict, found
    assert text in found.text
    assert ("ram_buffer_gb=" in found.cure) == (verdict != "good")


# -- rights ----------------------------------------------------------------------------------


@as_root
def test_a_user_without_rights_is_told_what_it_lacks() -> None:
    found = as_nobody("rights.look_at_rights(config)")
    assert found["file owner"]["verdict"] == "problem"
    assert "only root can change the user" in found["file owner"]["text"]
    assert found["CAP_SYS_NICE"]["verdict"] == "limits"
    assert "rtprio" in found["CAP_SYS_NICE"]["cure"]


@as_root
def test_root_that_writes_as_root_is_a_limit_and_as_a_user_is_good() -> None:
    assert about(rights.look_at_rights(config(writer_user_id=0)), "file owner").verdict == "limits"
    found = about(rights.look_at_rights(config(writer_user_id=NOBODY)), "file owner")
    assert (found.verdict, found.text) == ("good", "nobody, by root")


def test_few_open_files_are_a_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        found = about(rights.look_at_rights(config()), "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.verdict, found.cure) == ("limits", "ulimit -n 65536")


# -- storage ---------------------------------------------------------------------------------


def test_the_speed_of_a_folder_is_measured_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_BYTES", 4 * storage.PIECE_BYTES)
    found = about(storage.look_at_storage(tmp_path, config()), "file system")
    assert "B/s into memory" in found.text
    assert found.verdict in ("good", "limits")
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_folder_that_the_owner_of_the_files_cannot_write_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    found = about(storage.look_at_storage(tmp_path, config(writer_user_id=NOBODY)), "output folder")
    assert found.verdict == "problem"
    assert "nobody" in found.text


@as_root
def test_speed_is_measured_as_the_owner_of_the_files(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_BYTES", 2 * storage.PIECE_BYTES)
    folder = Path("/dev/shm") / f"std-daq-doctor-test-{os.getpid()}"
    folder.mkdir()
    try:
        os.chown(folder, NOBODY, NOBODY)
        found = list(storage.look_at_storage(folder, config(writer_user_id=NOBODY)))
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()
    assert [finding.subject for finding in found] == ["output folder", "disk space", "file system"]
    assert found[0].verdict == "limits"
    assert "in memory" in found[0].text


def test_a_folder_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    found = about(storage.look_at_storage(tmp_path / "gone", config()), "output folder")
    assert found.verdict == "problem"
    assert found.cure == f"mkdir -p {tmp_path}/gone"


def test_an_error_of_the_owners_process_comes_back_as_it_was() -> None:
    def fail() -> str:
        raise OSError(28, "No space left on device")

    if os.geteuid() != 0:
        absent("root", "becomes another user")
    with pytest.raises(OSError, match="No space left") as caught:
        storage.as_user(NOBODY, config(writer_user_id=NOBODY), fail)
    assert caught.value.errno == 28
