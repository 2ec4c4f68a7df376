"""A reader as the client's README has it, in front of the real service, sees every state of a run."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.client import Redis

from ioc.program.ports import LOOPBACK
from rest_bridge.redis_streams import STATUS, WRITER_STATUS
from tests.processes.service import Service


class Reader(threading.Thread):
    """The loop of the client's README, its reading of the reply corrected."""

    def __init__(self, port: int, stream: str) -> None:
        super().__init__()
        self.statuses: list[Any] = []
        self._redis = Redis(LOOPBACK, port)
        self._stream = stream
        self._end = threading.Event()

    def run(self) -> None:
        last_id: bytes | str = "$"
        while not self._end.is_set():
            reply = self._redis.xread({self._stream: last_id}, block=200, count=1)
            if reply:
                last_id, fields = reply[0][1][0]
                self.statuses.append(json.loads(fields[b"json"]))

    def end(self) -> None:
        self._end.set()
        self.join()
        self._redis.close()


@pytest.fixture(params=[STATUS, WRITER_STATUS])
def reader(service: Service, request: pytest.FixtureRequest) -> Iterator[Reader]:
    reader = Reader(service.redis_port, request.param)
    reader.start()
    yield reader
    reader.end()


def test_the_loop_of_the_clients_readme_sees_every_state_of_a_run(service: Service, reader: Reader) -> None:
    time.sleep(1.2)  # "$": from the first entry after the reader began to wait
    request = {"output_file": str(service.output / f"{reader.name}.h5"), "n_images": 20}
    service.post("/writer/write_async", request)
    service.simulator().send(20, rate_hz=20)
    service.wait_for("READY")
    time.sleep(0.5)
    shown = [(s["state"], s["acquisition"]["state"]) for s in reader.statuses]
    assert [state for state, _ in itertools.groupby(shown)][-6:] == [
        ("WRITING", "FINISHED"),
        ("WRITING", "WAITING_IMAGES"),
        ("WRITING", "ACQUIRING_IMAGES"),
        ("WRITING", "WRITING"),
        ("WRITING", "FLUSHING_IMAGES"),
        ("READY", "FINISHED"),
    ]
    assert reader.statuses[-1] == service.status()
    counts = [
        s["acquisition"]["stats"]["n_write_completed"] for s in reader.statuses if s["state"] == "WRITING"
    ]
    assert counts[1:] == sorted(counts[1:])
