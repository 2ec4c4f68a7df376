"""What a sender can make the receiver hold is bounded: small bounds, and a sender that speaks ZMTP itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from daq_core.receiving import stream_connection, streams
from daq_core.ring.words import Word
from ioc.program.ports import LOOPBACK
from tests.contract.test_bsread import bsread, camera, picture, sender
from tests.daq.still_receiver import StillReceiver

OPEN_BYTES = 100_000
IMAGE_BYTES = picture(1).nbytes
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 4) + b"PUSH"
LAST, MORE, COMMAND = 0, 1, 4


def part(content: bytes, flags: int) -> bytes:
    """A part of a message, as ZMTP 3.0 has it."""
    if len(content) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(content)) + content
    return bytes([flags, len(content)]) + content


def message(parts: list[bytes]) -> bytes:
    return b"".join(part(content, MORE) for content in parts[:-1]) + part(parts[-1], LAST)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[StillReceiver]:
    monkeypatch.setattr(streams, "OPEN_BYTES", OPEN_BYTES)
    with contextlib.closing(StillReceiver(camera(), 128)) as receiver:
        yield receiver


@contextlib.contextmanager
def listening(receiver: StillReceiver) -> Iterator[socket.socket]:
    """A place where the receiver connects to, without ZeroMQ."""
    port = int(receiver.config.stream_addresses[0].rpartition(":")[2])
    with socket.create_server((LOOPBACK, port)) as server:
        server.settimeout(30)
        yield server


@contextlib.contextmanager
def peer(server: socket.socket) -> Iterator[socket.socket]:
    """The connection of the receiver, once both have said who they are: before, nothing may be sent."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(30)
        connection.sendall(GREETING + bytes([COMMAND, len(READY)]) + READY)
        receive(connection, len(GREETING))
        receive(connection, receive(connection, 2)[1])
        yield connection


def receive(connection: socket.socket, n_bytes: int) -> bytes:
    received = b""
    while len(received) < n_bytes:
        piece = connection.recv(n_bytes - len(received))
        assert piece, "the receiver closed the connection"
        received += piece
    return received


def send_until_closed(connection: socket.socket, content: bytes) -> int:
    """Send parts without an end, at a few MB/s; return how many bytes went until the receiver closed."""
    block = part(content, MORE) * (8000 // (2 + len(content)))
    pace = threading.Event()
    for n_blocks in range(5000):
        try:
            connection.sendall(block)
        except ConnectionError:
            return n_blocks * len(block)
        pace.wait(0.003)
    pytest.fail(f"the receiver took {5000 * len(block)} bytes and keeps its connection")


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"x" * 5000], ids=["empty", "small", "large"])
def test_a_message_without_an_end_is_dropped_and_the_camera_is_heard_after_it(
    receiver: StillReceiver, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.ask_for_run()
    with receiver.running():
        with listening(receiver) as server:
            for _ in range(3):  # it is connected to again, each time
                with peer(server) as connection:
                    assert send_until_closed(connection, content) > OPEN_BYTES
        with sender(receiver.config) as camera_socket:
            camera_socket.send_multipart(bsread(7, picture(7)))
            receiver.wait_until(lambda: bool(receiver.words[Word.RUN_KEPT] == 1))
        receiver.ask_for_end()
        receiver.wait_for_end()
    assert list(receiver.images_of_the_run()) == [7]
    assert receiver.words[Word.MALFORMED] == 0
    assert 1 <= len(caplog.messages) <= 3
    for line in caplog.messages:
        assert line.startswith(f"{receiver.config.stream_addresses[0]}: dropped ")
        assert line.endswith("without an end; connecting again")


def test_many_sent_again_and_again_are_told_every_few_seconds(
    receiver: StillReceiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_connection, "LOG_EVERY_S", 3600)
    with receiver.running(), listening(receiver) as server:
        for _ in range(5):
            with peer(server) as connection:
                send_until_closed(connection, b"x" * 5000)
    assert ["without an end" in line for line in caplog.messages] == [True]


def test_a_message_that_takes_its_time_is_kept_whole(receiver: StillReceiver) -> None:
    """Up to the bound, in pieces, while the receiver looks at it many times."""
    whole = message([*bsread(3, picture(3)), bytes(OPEN_BYTES // 2), b""])
    looks = threading.Event()
    receiver.ask_for_run()
    with receiver.running(), listening(receiver) as server, peer(server) as connection:
        for at in range(0, len(whole), len(whole) // 10):
            looks.wait(3 * streams.LOOK_EVERY_S)
            connection.sendall(whole[at : at + len(whole) // 10])
        receiver.wait_until(lambda: bool(receiver.words[Word.RUN_KEPT] == 1))
        receiver.ask_for_end()
        receiver.wait_for_end()
    assert list(receiver.images_of_the_run()) == [3]


def test_whole_messages_that_wait_are_none_without_an_end(
    receiver: StillReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Far more of them than the bound, as when the receiver had no core for a while."""
    n_images = 100
    assert n_images * IMAGE_BYTES > 2 * (OPEN_BYTES + 4 * IMAGE_BYTES)
    receiver.ask_for_run()
    with sender(receiver.config) as camera_socket:
        for image_id in range(n_images):
            camera_socket.send_multipart(bsread(image_id, picture(image_id)))
        with receiver.running():
            receiver.wait_until(lambda: bool(receiver.words[Word.RUN_KEPT] == n_images))
            receiver.ask_for_end()
            receiver.wait_for_end()
    assert list(receiver.images_of_the_run()) == list(range(n_images))
    assert "without an end" not in caplog.text


def test_an_image_with_thousands_of_other_parts_is_taken(receiver: StillReceiver) -> None:
    receiver.ask_for_run()
    with receiver.running(), sender(receiver.config) as camera_socket:
        parts = [*bsread(5, picture(5)), *[b""] * 20_000]
        camera_socket.send_multipart(parts)
        camera_socket.send_multipart(bsread(6, picture(6)))
        receiver.wait_until(lambda: bool(receiver.words[Word.RUN_KEPT] == 2))
        receiver.ask_for_end()
        receiver.wait_for_end()
    assert list(receiver.images_of_the_run()) == [5, 6]
