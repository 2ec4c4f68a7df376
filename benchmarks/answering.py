"""How soon PVs and REST answer while the data path takes the whole machine, and how soon runs begin."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import detectors
from benchmarks.cpu import wall
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.service import CaClient, RestClient, Service, go_first
from benchmarks.traffic import Traffic
from daq_core.detectors import layout_of

READS_PER_SECOND = 400  # of each of the two: people and screens ask for less
MS = 1e3
PATIENCE_S = 30.0
BURST_S = 0.5  # of traffic that is handed to the sender at once


def reads_at_the_limit(effort: Effort) -> list[Figure]:
    """Reads while images of a Jungfrau module are sent as fast as possible, and written; some are dropped.

    Sender, receiver and writer together want more than the two cores.
    """
    config = detectors.jungfrau()
    with Service(config) as service, Traffic(config) as traffic, RestClient(service) as rest:
        n_images = shutil.disk_usage(service.folder).free // 2 // layout_of(config).image_bytes
        rest.post(
            "/writer/write_async", {"output_file": str(service.folder / "run.h5"), "n_images": n_images}
        )
        try:
            with CaClient(service) as ca, _flood(traffic, effort.packets_per_second) as n_packets:
                _wait_until_written(rest)
                asked_at, sent_before = wall(), n_packets()
                n_reads = max(10, round(READS_PER_SECOND * effort.seconds * 4))
                reads = {
                    "Channel Access": _read(lambda: ca.get("DAQ:AcqNWriteCompleted_RBV"), n_reads),
                    "REST": _read(lambda: rest.get("/writer/status"), n_reads),
                }
                rate = (n_packets() - sent_before) / (wall() - asked_at)
        finally:
            rest.post("/writer/stop", {})
    return [
        Figure.of_times(
            f"{face} read while the data path is at its limit",
            times,
            goal="p99 ≤ 10 ms",
            note=f"{rate / 1e3:.0f} kpps sent",
        )
        for face, times in reads.items()
    ]


def _wait_until_written(rest: RestClient) -> None:
    """Wait for the first images in the file: the data path is at work then."""
    deadline = wall() + PATIENCE_S
    while not rest.get("/writer/status")["writer"]["acquisition"]["stats"]["n_write_completed"]:
        if wall() > deadline:
            raise LostError(f"no image was written within {PATIENCE_S:.0f} s")
        time.sleep(0.01)


def _read(read: Callable[[], object], n_reads: int) -> list[float]:
    """Return the milliseconds of each of n reads, by a client that never waits for a core."""
    times = []

    def work() -> None:
        go_first()
        read()
        due = wall()
        for _ in range(n_reads):
            due += 1 / READS_PER_SECOND
            time.sleep(max(0.0, due - wall()))
            begin = wall()
            read()
            times.append((wall() - begin) * MS)

    client = threading.Thread(target=work)  # of its own: a thread's priority is not taken back
    client.start()
    client.join()
    if len(times) != n_reads:
        raise LostError(f"only {len(times)} of {n_reads} reads were answered")
    return times


@contextmanager
def _flood(traffic: Traffic, packets_per_second: float) -> Iterator[Callable[[], int]]:
    """Let images be sent as fast as possible while the block runs; gives how many packets there were."""
    stop = threading.Event()
    n_packets = 0

    def send() -> None:
        nonlocal n_packets
        n_images = max(2, round(packets_per_second * BURST_S / traffic.n_packets))
        while not stop.is_set():
            n_packets += traffic.send(traffic.config.start_udp_port, n_images, 0.0).n_packets

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield lambda: n_packets
    finally:
        stop.set()
        sender.join()


def starts_by_each_face(effort: Effort) -> list[Figure]:
    """From a client's request to the answer that says WAITING_IMAGES: the file is open."""
    by_rest, by_ca = [], []
    with (
        Service(detectors.jungfrau(height=16)) as service,
        RestClient(service) as rest,
        CaClient(service) as ca,
    ):
        for number in range(effort.n_runs):
            path = service.folder / f"{number}.h5"
            begin = wall()
            answer = rest.post("/writer/write_async", {"output_file": str(path), "n_images": 10})
            by_rest.append((wall() - begin) * MS)
            _check(answer["writer"]["acquisition"]["state"] == "WAITING_IMAGES")
            rest.post("/writer/stop", {})
            path.unlink()

            ca.put_text("DAQ:OutputFile", str(path))
            begin = wall()
            ca.put("DAQ:WriteAsync", [1])
            by_ca.append((wall() - begin) * MS)
            _check(rest.get("/writer/status")["writer"]["acquisition"]["state"] == "WAITING_IMAGES")
            ca.put("DAQ:Stop", [1])
            path.unlink()
    return [
        Figure.of_times(f"{face} request to WAITING_IMAGES", times, goal="p50 ≤ 50 ms")
        for face, times in (("REST", by_rest), ("Channel Access", by_ca))
    ]


def _check(is_waiting: bool) -> None:
    if not is_waiting:
        raise LostError("the request was answered before the run waited for images")


BENCHMARKS = (reads_at_the_limit, starts_by_each_face)
