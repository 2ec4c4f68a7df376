"""A Stop received after a start ends it on the wire, too: on one circuit, or over two connections."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable

import pytest

from tests.channel_access.ca_wire import ENUM, ERROR, WRITE_NOTIFY, Connection, message
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.processes.service import Service

OFF, ON = b"\0\0", b"\0\1"
LIMIT_S = 60.0
N = 5


def assert_over(service: Service) -> None:
    assert service.status()["state"] == "READY"
    time.sleep(0.1)  # a run that was lost from sight would be there by now
    assert service.status()["state"] == "READY"


def meet_on_one_circuit(service: Service, first: str, then: str, off: bytes) -> None:
    """Put 1 to the first PV, and `off`'s value to the other at once; wait for both answers."""
    with Connection(service.ca_port, LIMIT_S) as wire:
        start, stop = wire.channels([service.prefix + first, service.prefix + then])
        wire.send(
            message(WRITE_NOTIFY, ON, ENUM, 1, start, 1),
            message(WRITE_NOTIFY, off, ENUM, 1, stop, 2),
        )
        answers = []
        while len(answers) < 2:
            answer = wire.answer()
            assert answer is not None
            if answer.command in (WRITE_NOTIFY, ERROR):
                answers.append(answer)


def meet_by_write_async(service: Service, peer: EpicsPeer, number: int) -> None:
    path = str(service.output / f"async-{number}.h5")
    assert peer.put(service.prefix + "DAQ:OutputFile", path) == ECA_NORMAL
    assert peer.put(service.prefix + "DAQ:NImages", 1000) == ECA_NORMAL
    meet_on_one_circuit(service, "DAQ:WriteAsync", "DAQ:Stop", ON)


def meet_by_write_sync(service: Service, peer: EpicsPeer, number: int) -> None:
    path = str(service.output / f"sync-{number}.h5")
    assert peer.put(service.prefix + "DAQ:OutputFile", path) == ECA_NORMAL
    assert peer.put(service.prefix + "DAQ:NImages", 1000) == ECA_NORMAL
    meet_on_one_circuit(service, "DAQ:WriteSync", "DAQ:Stop", ON)


def meet_by_capture(service: Service, peer: EpicsPeer, number: int) -> None:
    assert peer.put(service.prefix + "HDF1:FilePath", str(service.output)) == ECA_NORMAL
    assert peer.put(service.prefix + "HDF1:FileName", f"capture-{number}") == ECA_NORMAL
    meet_on_one_circuit(service, "HDF1:Capture", "HDF1:Capture", OFF)


@pytest.mark.parametrize(
    "meet", [meet_by_write_async, meet_by_write_sync, meet_by_capture], ids=lambda meet: meet.__name__
)
def test_a_stop_behind_a_start_on_one_circuit_leaves_no_run(
    service: Service, meet: Callable[[Service, EpicsPeer, int], None]
) -> None:
    with EpicsPeer(service.ca_port) as peer:
        for number in range(N):
            meet(service, peer, number)
            assert_over(service)


@pytest.mark.parametrize("gap_s", [0.0, 0.001, 0.005, 0.02])
def test_a_stop_over_another_connection_leaves_no_run(service: Service, gap_s: float) -> None:
    for number in range(N):
        starting = http.client.HTTPConnection(service.rest_url.removeprefix("http://"), timeout=LIMIT_S)
        path = str(service.output / f"rest-{gap_s}-{number}.h5")
        body = json.dumps({"output_file": path, "n_images": 1000})
        starting.request("POST", "/writer/write_async", body, {"Content-Type": "application/json"})
        time.sleep(gap_s)
        assert service.post("/writer/stop")["writer"]["state"] == "READY"
        assert_over(service)
        answer = json.loads(starting.getresponse().read())
        starting.close()
        assert answer["status"] == "ok" or answer["message"] == "Stopped before the file was open."
