"""A detector that sends more than the config says: no image of it is called good, and it is said why."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import h5py
import pytest
import pytest_asyncio

from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, eiger, eventually, loopback_daq, standing_still

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_FORMAT = 3
LIMIT_S = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(eiger(4), tmp_path_factory.mktemp("formats")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module", params=[1, 3], ids=["1 writer", "3 writers"])
async def bench(module_bench: Bench, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    await module_bench.daq.configure({"bit_depth": 4, "number_of_writers": request.param})
    await module_bench.daq.reconfigured()
    yield module_bench
    await module_bench.stop()
    await module_bench.perfect_run(3)


def packets(bench: Bench, image_id: int, bit_depth: int | None = None) -> list[bytes]:
    """Return what the one module sends of an image, at another depth than the config's if one is given."""
    config = bench.daq.snapshot.config
    simulator = Simulator(config.merge({"bit_depth": bit_depth or config.bit_depth}))
    return [bytes(one) for one in simulator.packets(image_id)[0]]


def send(bench: Bench, datagrams: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, (LOOPBACK, bench.simulator.ports[0]))


def status_in(path: Path) -> list[int]:
    with h5py.File(path) as file:
        status = file["entry/data/status"][:].tolist()
        n_other = status.count(OTHER_FORMAT)
        assert file["entry/run/counters/other_format_images"][()] == n_other
        assert file["entry/run/state"].asstr()[()] == "FINISHED"
        return [int(one) for one in status]


@pytest.mark.parametrize(("daq", "detector"), [(4, 8), (16, 32)])
async def test_no_image_of_a_detector_at_more_bits_is_good_and_one_warning_says_why(
    bench: Bench, daq: int, detector: int, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.daq.configure({"bit_depth": daq})
    await bench.daq.reconfigured()
    path, ids = await bench.start(0), bench.next_ids(5)
    n_before = bench.counters().packets_received
    for image_id in ids:
        send(bench, packets(bench, image_id, detector))
    await bench.counted(n_before + 5 * 4 * detector, LIMIT_S)
    await bench.stop()
    assert status_in(path) == [OTHER_FORMAT] * 5
    losses = bench.daq.snapshot.losses
    assert (losses.other_format_images, losses.not_good_images, losses.missing_packets) == (5, 5, 0)
    said = f"packet {4 * detector - 1}, a {daq}-bit frame has {4 * daq}: is the detector at {detector} bit?"
    port = f"UDP port {bench.simulator.ports[0]}, module 0: "
    assert port + said in bench.daq.snapshot.health.warning
    lines = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith(port) for line in lines) == 1
    assert any("5 images in another format than the config's" in line for line in lines)


async def test_rows_that_are_in_the_file_get_their_status_when_the_proof_comes(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(4)
    for image_id in ids:
        send(bench, packets(bench, image_id))
    await bench.until_written(4, LIMIT_S)
    n_before = bench.counters().packets_malformed
    for image_id in ids[1:3]:
        send(bench, packets(bench, image_id, 8)[16:])
    await eventually(lambda: bench.counters().packets_malformed == n_before + 32, LIMIT_S)
    await bench.stop()
    assert status_in(path) == [0, OTHER_FORMAT, OTHER_FORMAT, 0]


async def test_a_run_does_not_close_before_the_proof_of_its_last_image_is_read(bench: Bench) -> None:
    """Its first packet beyond the config's follows the last one that the config has."""
    path, (image_id,) = await bench.start(1), bench.next_ids(1)
    with standing_still([bench.receiver]):
        send(bench, packets(bench, image_id)[:16] + packets(bench, image_id, 8)[16:17])
    status = await bench.end(LIMIT_S)
    assert status.acquisition.message == "Completed."
    assert status_in(path) == [OTHER_FORMAT]


async def test_frames_without_a_packet_of_the_config_are_no_images_but_are_told(bench: Bench) -> None:
    path, ids = await bench.start(0), bench.next_ids(3)
    n_before = bench.counters().packets_malformed
    for image_id in ids:
        send(bench, packets(bench, image_id, 8)[16:])
    await eventually(lambda: bench.counters().packets_malformed == n_before + 3 * 16, LIMIT_S)
    await bench.stop()
    assert status_in(path) == []
    assert "packet 31, a 4-bit frame has 16" in bench.daq.snapshot.health.warning


async def test_headers_of_another_detector_are_named_and_make_no_image(bench: Bench) -> None:
    path, (image_id,) = await bench.start(0), bench.next_ids(1)
    n_before = bench.counters().packets_malformed
    send(bench, [one[:46] + bytes((3, 2)) + one[48:] for one in packets(bench, image_id)])
    await eventually(lambda: bench.counters().packets_malformed == n_before + 16, LIMIT_S)
    await bench.stop()
    assert status_in(path) == []
    assert "detector type 3 (Jungfrau) in the header, of eiger it is 1" in bench.daq.snapshot.health.warning
