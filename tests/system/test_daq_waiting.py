"""A run that gets no image says what it waits for: nothing comes, or what comes makes none, and where."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daq_core.linux.network import parse_networks
from daq_core.state.status import DaqState
from ioc.program.ports import LOOPBACK, free_ports
from tests.contract.test_bsread import camera
from tests.daq.loopback import Bench, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_S = 60.0
N_PORTS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(jungfrau(N_PORTS, rows=16), tmp_path_factory.mktemp("waiting")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Impatient: it says after half a second what it says after five; the next run is perfect, and quiet."""
    monkeypatch.setattr("daq_core.pipeline.waiting.SILENT_S", 0.5)
    yield module_bench
    await module_bench.stop()
    assert module_bench.daq.snapshot.health.waiting == ""
    monkeypatch.undo()
    await module_bench.perfect_run(3)


async def told(bench: Bench, *words: str) -> str:
    """Wait until what the run waits for has all of these words; return it."""
    snapshot = await bench.when(lambda s: all(word in s.health.waiting for word in words), LIMIT_S)
    assert snapshot.health.waiting in snapshot.health.warning
    return snapshot.health.waiting


def send(bench: Bench, datagram: bytes, n: int, *ports: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in ports:
            for _ in range(n):
                sender.sendto(datagram, (LOOPBACK, bench.simulator.ports[port]))


async def test_when_nothing_comes_the_ports_are_named_and_each_run_has_one_line_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_, last = bench.simulator.ports
    for n_runs in (1, 2):
        await bench.start(3)
        said = await told(bench, f"no packet on UDP {first} to {last} for ", "is the detector armed")
        assert f"udp portrange {first}-{last}" in said
        await bench.when(lambda s, shown=bench.daq.snapshot: s is not shown, LIMIT_S)  # type: ignore[misc]
        await bench.stop()
        lines = [record for record in caplog.records if "no packet on UDP" in record.message]
        assert len(lines) == n_runs
        assert {line.levelno for line in lines} == {logging.WARNING}


async def test_datagrams_of_another_detector_are_told_with_both_lengths_and_their_ports(bench: Bench) -> None:
    await bench.start(3)
    send(bench, bytes(4144), 20, 0, 2)
    first, second, third = bench.simulator.ports
    said = await told(
        bench, f"40 datagrams of 4144 bytes on ports {first} and {third}, a jungfrau's have 8240"
    )
    assert "they look like an eiger's" in said
    assert f"no packet on UDP {second} for" in said


async def test_a_datagram_longer_than_a_packet_is_told_with_the_length_that_was_sent(bench: Bench) -> None:
    await bench.start(3)
    send(bench, bytes(9000), 5, 1)
    await told(bench, f"5 datagrams of 9000 bytes on port {bench.simulator.ports[1]}, a jungfrau's have 8240")


async def test_packets_that_make_no_image_are_told_with_what_became_of_them(bench: Bench) -> None:
    await bench.start(3)
    send(bench, b"\xff" * 8240, 7, 0, 1, 2)
    await told(bench, "21 packets in ", "and no image of them (21 malformed)")


async def test_what_comes_after_the_silence_is_told_instead(bench: Bench) -> None:
    await bench.start(3)
    await told(bench, "no packet on UDP")
    send(bench, bytes(100), 1, 0)
    await told(bench, "1 datagrams of 100 bytes on port")


async def test_images_that_come_end_the_warning_and_a_silence_after_them_says_so(bench: Bench) -> None:
    await bench.start(10)
    await told(bench, "no packet on UDP")
    bench.snapshots.clear()
    await bench.send(bench.next_ids(2))
    await bench.until_written(2)
    assert any(s.health.waiting == "" for s in bench.snapshots)
    await told(bench, " after image 2: ")
    await bench.send(bench.next_ids(8))
    await bench.until(DaqState.READY, timeout_s=LIMIT_S)


async def test_a_run_that_is_not_waiting_says_nothing(bench: Bench) -> None:
    bench.snapshots.clear()
    await bench.perfect_run(20)
    assert not any(s.health.waiting for s in bench.snapshots)


async def test_senders_that_are_not_allowed_are_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daq_core.pipeline.waiting.SILENT_S", 0.5)
    sources = parse_networks("127.0.0.99/32")
    async with loopback_daq(jungfrau(rows=16), tmp_path, udp_sources=sources) as bench:
        await bench.start(3)
        send(bench, bytes(8240), 4, 0)
        await told(bench, "4 packets of senders not in --udp-sources")
        await bench.stop()


async def test_images_that_are_all_dropped_are_no_images_and_their_lack_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daq_core.pipeline.waiting.SILENT_S", 0.5)
    config = jungfrau(2, rows=16, incomplete_images="drop", image_timeout_s=0.1)
    async with loopback_daq(config, tmp_path) as bench:
        await bench.start(3)
        first, second = bench.simulator.ports
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for image_id in bench.next_ids(4):
                for datagram in bench.simulator.packets(image_id)[0]:
                    sender.sendto(datagram, (LOOPBACK, first))
        said = await told(
            bench, "4 images in ", "they lack packets, and incomplete_images of the config is drop"
        )
        assert f"no packet on UDP {second} for" in said
        await bench.stop()


async def test_a_camera_that_sends_no_message_is_named_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daq_core.pipeline.waiting.SILENT_S", 0.5)
    address = f"tcp://{LOOPBACK}:{free_ports()}"
    async with loopback_daq(camera(stream_addresses=[address]), tmp_path) as bench:
        await bench.start(3)
        await told(bench, f"no message on {address} for ", "stream_socket pull is for a camera that pushes")
        await bench.stop()
