"""One Channel Access client cannot hurt another, whatever it sends or does not read."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import time

import pytest

from daq_core.errors import Unavailable
from ioc.pvs import PVS
from tests.epics_peer import ECA_NORMAL, EpicsPeer
from tests.ioc_thread import IocThread

STRING, INT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
VERSION = struct.pack(">HHHHII", 0, 0, 0, 13, 0, 0)


def connection(ioc: IocThread) -> socket.socket:
    return socket.create_connection(("127.0.0.1", ioc.ca_port), timeout=10)


def is_closed(sock: socket.socket) -> bool:
    """Tell whether the server closes a connection; what it sends until then is thrown away."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.timeout(180)
def test_a_client_that_stops_reading_is_disconnected_and_the_others_see_everything(
    ioc: IocThread, peer: EpicsPeer
) -> None:
    names = [row.pv(ioc.prefix) for row in PVS]
    beat, counted = ioc.pv("IOC:HEARTBEAT"), ioc.pv("IOC:CaStalled_RBV")
    before = ioc.ioc._server.n_stalled
    with EpicsPeer(ioc.ca_port) as sleeper:
        sleeper.monitor(*names)
        peer.monitor(beat, counted)
        os.kill(sleeper.pid, signal.SIGSTOP)
        began = time.monotonic()
        lags, n_beats = [], len(peer.updates(beat))
        last = began
        while ioc.ioc._server.n_stalled == before and time.monotonic() - began < 60:
            ioc.do(flood(ioc))
            time.sleep(0.01)
            now = len(peer.updates(beat))
            if now > n_beats:
                lags.append(time.monotonic() - last)
                n_beats, last = now, time.monotonic()
        assert ioc.ioc._server.n_stalled == before + 1
        assert time.monotonic() - began < 15
        assert max(lags) < 2.0
    peer.wait_for(counted, before + 1)


async def flood(ioc: IocThread) -> None:
    """Change long texts, so that the buffers of a client that does not read are full soon."""
    log = ioc.daq.snapshot.log
    status = ioc.daq.snapshot.status
    ioc.daq.publish(config_id=f"{time.time_ns()}-0", status=status, log=log)
    for record in ioc.ioc._records.values():
        if record.nelm == 65536:
            record.post("x" * 60000 + str(time.time_ns()), time=time.time())


def test_garbage_ends_its_own_connection_alone(ioc: IocThread, peer: EpicsPeer) -> None:
    rng = random.Random(7)
    for _ in range(30):
        with connection(ioc) as sock:
            try:
                sock.sendall(rng.randbytes(rng.randrange(16, 3000)))
                sock.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # it was quick to close
            assert is_closed(sock)
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"


@pytest.mark.parametrize("command", range(30))
def test_any_command_with_a_random_header_leaves_the_server_alive(
    ioc: IocThread, peer: EpicsPeer, command: int
) -> None:
    rng = random.Random(command)
    for _ in range(5):
        with connection(ioc) as sock:
            numbers = [rng.choice((0, 1, 8, 24, 40, 65535)) for _ in range(3)]
            ids = [rng.choice((0, 1, 2**32 - 1)) for _ in range(2)]
            sock.sendall(VERSION + struct.pack(">HHHHII", command, *numbers, *ids) + bytes(64))
            sock.shutdown(socket.SHUT_WR)
            assert is_closed(sock)
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"


def test_a_header_that_announces_gigabytes_is_not_believed(ioc: IocThread, peer: EpicsPeer) -> None:
    huge = struct.pack(">HHHHIIII", 4, 0xFFFF, 4, 0, 1, 1, 2**32 - 8, 2**31)
    with connection(ioc) as sock:
        sock.sendall(VERSION + huge)
        assert is_closed(sock)
    assert peer.text(ioc.pv("DAQ:State_RBV")) == "READY"


def message(command: int, payload: bytes = b"", kind: int = 0, n: int = 0, p1: int = 0, p2: int = 0) -> bytes:
    payload += bytes(-len(payload) % 8)
    return struct.pack(">HHHHII", command, len(payload), kind, n, p1, p2) + payload


def answers(sock: socket.socket, wanted: int, n: int) -> list[tuple[int, int, bytes]]:
    """Return the next n answers of one kind, as (parameter 1, parameter 2, payload)."""
    found: list[tuple[int, int, bytes]] = []
    with sock.makefile("rb") as file:
        while len(found) < n:
            command, size, _, _, p1, p2 = struct.unpack(">HHHHII", file.read(16))
            payload = file.read(size)
            if command == wanted:
                found.append((p1, p2, payload))
    return found


CREATE, PUT, PUT_NOTIFY, READ_NOTIFY, CLEAR, ERROR = 18, 4, 19, 15, 12, 11


def channel(sock: socket.socket, name: str) -> int:
    """Create a channel and return its server id."""
    sock.sendall(VERSION + message(CREATE, name.encode() + b"\0", p1=1, p2=13))
    ((_, sid, _),) = answers(sock, CREATE, 1)
    return sid


def test_a_read_sent_right_behind_a_put_sees_the_new_value(ioc: IocThread) -> None:
    with connection(ioc) as sock:
        sid = channel(sock, ioc.pv("DAQ:NImages"))
        for n in range(1, 50):
            put = message(PUT, struct.pack(">i", n), kind=LONG, n=1, p1=sid, p2=n)
            sock.sendall(put + message(READ_NOTIFY, kind=LONG, n=1, p1=sid, p2=n))
            ((_, _, payload),) = answers(sock, READ_NOTIFY, 1)
            assert struct.unpack(">i", payload[:4]) == (n,)


def test_a_channel_that_is_cleared_during_a_put_leaves_the_server_alive(
    ioc: IocThread, peer: EpicsPeer
) -> None:
    with connection(ioc) as sock:
        sid = channel(sock, ioc.pv("DAQ:Stop"))
        put = message(PUT_NOTIFY, struct.pack(">H", 1), kind=ENUM, n=1, p1=sid, p2=1)
        sock.sendall(put + message(CLEAR, p1=sid, p2=1))
        answers(sock, CLEAR, 1)
    assert peer.get(ioc.pv("IOC:Errors_RBV")) == 0


def test_a_refused_put_says_why_in_its_error(ioc: IocThread) -> None:
    with connection(ioc) as sock:
        sid = channel(sock, ioc.pv("DAQ:NImages"))
        sock.sendall(message(PUT, struct.pack(">i", 0), kind=LONG, n=1, p1=sid, p2=1))
        ((_, _, payload),) = answers(sock, ERROR, 1)
        assert b"takes 1 to 2147483647, got 0" in payload


def test_garbage_by_udp_is_ignored(ioc: IocThread) -> None:
    rng = random.Random(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(500):
            sock.sendto(rng.randbytes(rng.randrange(0, 200)), ("127.0.0.1", ioc.ca_port))
    with EpicsPeer(ioc.ca_port) as newcomer:
        assert newcomer.text(ioc.pv("DAQ:State_RBV")) == "READY"


def test_a_second_server_on_the_port_is_refused_with_what_to_do(ioc: IocThread) -> None:
    second = IocThread(ioc.config)
    second.ca_port = ioc.ca_port
    with pytest.raises(Unavailable, match=rf"port {ioc.ca_port} .*--ca-port"), second:
        pass


@pytest.mark.timeout(300)
def test_random_puts_of_every_type_leave_every_pv_readable(ioc: IocThread, peer: EpicsPeer) -> None:
    rng = random.Random(11)
    commands = {"DAQ:WriteSync", "DAQ:WriteAsync", "DAQ:ConfigApply"}  # a run would wait for images
    rows = [row for row in PVS if row.put is not None and row.pv("") not in commands]
    for _ in range(1000):
        row, kind = rng.choice(rows), rng.choice((STRING, INT, FLOAT, ENUM, CHAR, LONG, DOUBLE))
        peer.put(row.pv(ioc.prefix), value_of(kind, row.nelm, rng), as_type=kind)
    for row in PVS:
        assert peer.info(row.pv(ioc.prefix))["count"] == row.nelm
        peer.get(row.pv(ioc.prefix))
    assert peer.put(ioc.pv("DAQ:ConfigRevert"), 1) == ECA_NORMAL
    assert peer.get(ioc.pv("IOC:Errors_RBV")) == 0


def value_of(kind: int, nelm: int, rng: random.Random) -> object:
    """Return a value to put as a CA type, an array for a PV that is one."""
    if kind == STRING:
        return rng.choice(("", "1", "-1", "Start", "nan", "1e99", "/tmp/x", "{}", "eiger", "x" * 39))
    bits = {INT: 15, ENUM: 15, CHAR: 7, LONG: 31}.get(kind)
    n = 1 if nelm == 1 else rng.randrange(1, 40)
    values = [
        rng.choice((0.0, 1.0, -1.0, 1e30, float("nan"), float("inf"), 2.5))
        if bits is None
        else rng.choice((0, 1, 2, 16, rng.randrange(2**bits)))
        for _ in range(n)
    ]
    return values[0] if nelm == 1 else values
