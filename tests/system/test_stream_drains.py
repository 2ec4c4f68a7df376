"""Of a stream, too, what had come when a run was stopped is in it, and no stream holds up its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from daq_core.ring.ring import COMPLETE
from daq_core.ring.words import NO_END, Word
from tests.contract.test_bsread import bsread, camera, picture, sender
from tests.daq.still_receiver import StillReceiver

N_SLOTS = 128
N_IMAGES = 60  # several turns of a socket


@pytest.fixture(params=[1, 2], ids=["one camera", "two cameras"])
def receiver(request: pytest.FixtureRequest) -> Iterator[StillReceiver]:
    with contextlib.closing(StillReceiver(camera(request.param), N_SLOTS)) as receiver:
        yield receiver


def has_connection(port: int) -> bool:
    """Tell whether a connection to a TCP port is open, or has not been read to its end (proc(5))."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[2].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


def test_messages_that_wait_when_the_stop_comes_are_in_the_run(receiver: StillReceiver) -> None:
    for which, address in enumerate(receiver.config.stream_addresses):
        with sender(receiver.config, which) as socket:
            for i in range(which, N_IMAGES, len(receiver.config.stream_addresses)):
                socket.send_multipart(bsread(i, picture(i)))
        port = int(address.rpartition(":")[2])
        receiver.wait_until(lambda port=port: not has_connection(port))
    receiver.ask_for_run()
    receiver.ask_for_end()
    with receiver.running():
        receiver.wait_for_end()
    assert receiver.images_of_the_run().keys() == set(range(N_IMAGES))
    assert set(receiver.images_of_the_run().values()) == {COMPLETE}


def test_cameras_that_do_not_pause_do_not_hold_up_the_end(receiver: StillReceiver) -> None:
    enough = threading.Event()

    def stream(which: int) -> None:
        message = bsread(0, picture(0))
        with sender(receiver.config, which) as socket:
            socket.linger = 0
            number = which
            while not enough.is_set():
                number += 2
                message[0] = bsread(number, picture(0))[0]
                if socket.poll(100, zmq.POLLOUT):
                    socket.send_multipart(message)

    cameras = [
        threading.Thread(target=stream, args=(which,))
        for which in range(len(receiver.config.stream_addresses))
    ]
    for one in cameras:
        one.start()
    try:
        receiver.ask_for_run()
        with receiver.running():
            receiver.wait_until(lambda: bool(receiver.words[Word.RUN_KEPT] >= N_IMAGES))
            receiver.ask_for_end()
            receiver.wait_for_end()
        assert N_IMAGES <= receiver.words[Word.RUN_END] < NO_END
    finally:
        enough.set()
        for one in cameras:
            one.join()
