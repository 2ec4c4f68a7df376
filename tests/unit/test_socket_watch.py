"""What the kernel drops, and what waits, is known for each UDP port; a new run begins with a new peak."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from daq_core.linux.sockets import close_all, open_receiver
from daq_core.receiving.socket_watch import SocketWatch
from daq_core.ring.ring import Ring, RingShape
from daq_core.ring.words import SocketState, Word
from ioc.program.ports import LOOPBACK

BUFFER_BYTES = 32768


@pytest.fixture
def ring() -> Ring:
    shape = RingShape(n_slots=2, n_modules=1, n_units=1, room_bytes=100, n_ports=2)
    descriptor = shape.create()
    try:
        return shape.attach(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    both = [open_receiver(LOOPBACK, 0, BUFFER_BYTES) for _ in range(2)]
    yield both
    close_all(both)


def send(receiver: socket.socket, n: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(n):
            sender.sendto(bytes(1000), receiver.getsockname())


def test_drops_and_peaks_are_those_of_each_port(
    ring: Ring, sockets: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    watch = SocketWatch(ring, sockets)
    send(sockets[1], 200)
    watch.look()
    quiet, full = ring.sockets
    assert (quiet[SocketState.DROPS], quiet[SocketState.USED]) == (0, 0)
    assert full[SocketState.DROPS] > 100
    assert full[SocketState.PEAK] == full[SocketState.USED] > full[SocketState.SIZE] // 2
    assert ring.words[Word.KERNEL_DROPS] == full[SocketState.DROPS]
    assert (
        f"dropped {full[SocketState.DROPS]} datagrams at UDP port {sockets[1].getsockname()[1]}"
        in caplog.text
    )

    before = int(full[SocketState.PEAK])
    while select.select([sockets[1]], [], [], 0)[0]:
        sockets[1].recv(2000)
    watch.look()
    assert (full[SocketState.USED], full[SocketState.PEAK]) == (0, before)
    ring.words[Word.RUN_EPOCH] = 1
    watch.look()
    assert full[SocketState.PEAK] == 0


def test_the_next_receiver_goes_on_counting(ring: Ring, sockets: list[socket.socket]) -> None:
    SocketWatch(ring, sockets)
    ring.sockets[:, SocketState.DROPS] = 5, 7
    ring.words[Word.KERNEL_DROPS] = 12
    watch = SocketWatch(ring, sockets)
    send(sockets[0], 200)
    watch.look()
    assert ring.sockets[0, SocketState.DROPS] > 105
    assert ring.sockets[1, SocketState.DROPS] == 7
    assert ring.words[Word.KERNEL_DROPS] == ring.sockets[:, SocketState.DROPS].sum()
