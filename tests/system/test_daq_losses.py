"""What does not arrive is said: modules that are silent, packets and images that are lost."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from daq_core.assembling.placing import KERNELS
from daq_core.detectors.jungfrau import JUNGFRAU
from daq_core.ring.words import SocketState
from daq_core.state.losses import NO_LOSSES, Losses
from daq_core.state.status import DaqState
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_PACKETS = 4  # of one module of 16 rows


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    config = jungfrau(3, rows=16, image_timeout_s=0.2)
    async with loopback_daq(config, tmp_path_factory.mktemp("losses")) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    yield module_bench
    await module_bench.stop()
    await module_bench.perfect_run(3)


def send_without(bench: Bench, image_id: int, *lost: tuple[int, int]) -> np.ndarray:
    """Send an image without some packets, (port, place) each; return (H, W) bool, the pixels in them."""
    layout = bench.simulator.layout
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port, datagrams in enumerate(bench.simulator.packets(image_id)):
            for place, datagram in enumerate(datagrams):
                if (port, place) not in lost:
                    sender.sendto(datagram, (LOOPBACK, bench.simulator.ports[port]))
    pixels, erase = np.ones(layout.image_shape, layout.dtype), KERNELS["sls"].erase
    for port, place in lost:
        erase(layout.ports, port, place, pixels.view(np.uint8).reshape(-1))
    return np.equal(pixels, 0)


async def test_images_of_stray_packets_are_said_in_the_warning_and_at_the_end_of_the_run(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    _, ids = await bench.start(3), bench.next_ids(3)
    for i in ids:
        send_without(bench, i, *((port, place) for port in range(3) for place in range(1, N_PACKETS)))
    status = await bench.end()
    assert status.acquisition.message == "Completed."
    said = "images of the run that hold less than half of their packets: 3"
    assert said in bench.daq.snapshot.health.warning
    losses = bench.daq.snapshot.losses
    assert (losses.sparse_images, losses.not_good_images, losses.incomplete_images) == (3, 3, 3)
    lines = [record.getMessage() for record in caplog.records]
    assert any("3 images; lost: 3 images incomplete, 3 images with less than half" in line for line in lines)
    assert sum(line.startswith("images of the run that hold") for line in lines) == 1


async def test_a_silent_module_is_named_and_its_images_are_written_without_it(bench: Bench) -> None:
    path, ids = await bench.start(4), bench.next_ids(4)
    lost = {i: send_without(bench, i, *((1, place) for place in range(N_PACKETS))) for i in ids}
    status = await bench.end()
    assert status.acquisition.message == "Completed."
    losses = bench.daq.snapshot.losses
    assert losses.silent_modules == (1,)
    assert (losses.incomplete_images, losses.missing_packets) == (4, 4 * N_PACKETS)
    assert_holds(path, bench.simulator, ids, lost=lost, n_missing=dict.fromkeys(ids, N_PACKETS))


async def test_a_module_that_is_heard_again_is_not_called_silent(bench: Bench) -> None:
    await bench.start(2)
    first, second = bench.next_ids(2)
    send_without(bench, first, *[(1, place) for place in range(N_PACKETS)])
    send_without(bench, second)
    await bench.end()
    assert bench.daq.snapshot.losses.silent_modules == ()
    assert bench.daq.snapshot.losses.incomplete_images == 1


async def test_a_run_ends_although_the_very_last_packet_was_lost(bench: Bench) -> None:
    path, ids = await bench.start(3), bench.next_ids(3)
    for image_id in ids[:-1]:
        send_without(bench, image_id)
    lost = send_without(bench, ids[-1], (2, N_PACKETS - 1))
    assert (await bench.end()).acquisition.message == "Completed."
    assert_holds(path, bench.simulator, ids, lost={ids[-1]: lost}, n_missing={ids[-1]: 1})


async def test_a_stop_does_not_wait_for_packets_that_are_lost(bench: Bench) -> None:
    """Complete images are kept, the one that still waits for packets is left out."""
    path, ids = await bench.start(10), bench.next_ids(3)
    for image_id in ids[:-1]:
        send_without(bench, image_id)
    await bench.until_written(2)
    send_without(bench, ids[-1], (0, 0))
    status = await bench.stop()
    assert status.acquisition.message == "Interrupted."
    assert_holds(path, bench.simulator, ids[:-1])


async def test_the_losses_are_those_of_the_last_run_alone(bench: Bench) -> None:
    await bench.start(1)
    send_without(bench, bench.next_ids(1)[0], (0, 0))
    await bench.end()
    assert bench.daq.snapshot.losses.missing_packets == 1
    total = bench.daq.snapshot.counters.missing_packets
    await bench.perfect_run(2)
    assert bench.daq.snapshot.losses.missing_packets == 0
    assert bench.daq.snapshot.counters.missing_packets == total


async def test_a_run_that_lost_something_ends_with_a_warning_that_has_the_numbers(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    path, ids = await bench.start(4), bench.next_ids(4)
    for i in ids:
        send_without(bench, i, (0, 0), *((1, place) for place in range(N_PACKETS)))
    await bench.end()
    (line,) = [record for record in caplog.records if str(path) in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        f"{path}: Completed., 4 images; lost: 4 images incomplete, {4 * (N_PACKETS + 1)} packets missing, "
        "nothing from module 1; efficiency 0.0%"
    )


async def test_a_run_that_lost_nothing_ends_with_a_line_and_no_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await bench.perfect_run(2)
    (line,) = [record for record in caplog.records if "Completed." in record.getMessage()]
    assert (line.levelno, "lost" in line.getMessage()) == (logging.INFO, False)


async def test_what_a_run_lost_stays_said_when_the_config_is_changed(bench: Bench) -> None:
    await bench.start(1)
    send_without(bench, bench.next_ids(1)[0], (0, 0))
    before = (await bench.end()).acquisition
    assert before.losses == Losses(missing_packets=1, incomplete_images=1, not_good_images=1)
    await bench.daq.configure({"image_timeout_s": 0.25})
    await bench.daq.reconfigured()
    assert bench.status.acquisition == bench.daq.snapshot.log[0] == before
    await bench.daq.configure({"image_timeout_s": 0.2})
    await bench.daq.reconfigured()


async def test_the_efficiency_is_that_of_what_was_asked_for_and_while_it_runs_of_what_came(
    bench: Bench,
) -> None:
    await bench.start(10)
    assert bench.status.acquisition.efficiency is None
    ids = bench.next_ids(4)
    for i in ids[:-1]:
        send_without(bench, i)
    send_without(bench, ids[-1], (0, 0))
    await bench.until_written(4)
    assert bench.status.acquisition.efficiency == 3 / 4
    await bench.stop()
    assert bench.status.acquisition.efficiency == 3 / 10


async def test_a_run_that_begins_lost_nothing_of_what_the_run_before_lost(bench: Bench) -> None:
    await bench.start(1)
    send_without(bench, bench.next_ids(1)[0], (0, 0))
    assert (await bench.end()).acquisition.losses != NO_LOSSES
    await bench.start(1)
    assert bench.status.acquisition.losses == NO_LOSSES
    await bench.stop()
    assert bench.status.acquisition.losses == NO_LOSSES


async def test_foreign_and_malformed_packets_are_counted_and_harm_nothing(bench: Bench) -> None:
    path, ids = await bench.start(2), bench.next_ids(2)
    before = bench.counters()
    (whole, *_), *_ = bench.simulator.packets(ids[0])
    out_of_range = whole.copy()
    header = out_of_range[:48].view(JUNGFRAU.header)
    header["packet_number"], header["frame_number"] = 9_999, 2**40  # of a frame that is no image here
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (b"", b"x", whole[:-1], np.append(whole, whole[:1]), out_of_range):
            sender.sendto(bytes(datagram), (LOOPBACK, bench.simulator.ports[0]))
    after = await bench.counted(before.packets_received + 5)
    refused = after.packets_malformed + after.packets_foreign
    assert refused - before.packets_malformed - before.packets_foreign == 5
    await bench.send(ids)
    await bench.end()
    assert_holds(path, bench.simulator, ids)


@pytest.mark.parametrize("length", [100, 9000])
async def test_a_length_that_no_packet_has_is_kept_for_its_port(bench: Bench, length: int) -> None:
    """The length that was sent, also of a datagram longer than there is room for; of other ports nothing."""
    sockets = bench.daq.ring.sockets
    before = sockets.copy()
    (whole, *_), *_ = bench.simulator.packets(bench.next_ids(1)[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (bytes(length), bytes(length), bytes(whole)):
            sender.sendto(datagram, (LOOPBACK, bench.simulator.ports[1]))
    await eventually(lambda: sockets[1, SocketState.RECEIVED] - before[1, SocketState.RECEIVED] == 3, 30)
    await eventually(
        lambda: sockets[1, SocketState.ODD_LENGTHS] - before[1, SocketState.ODD_LENGTHS] == 2, 30
    )
    assert np.array_equal(sockets[::2, SocketState.RECEIVED], before[::2, SocketState.RECEIVED])
    assert np.array_equal(sockets[::2, SocketState.ODD_LENGTHS], before[::2, SocketState.ODD_LENGTHS])
    assert sockets[1, SocketState.ODD_LENGTH] == length


async def test_incomplete_images_are_dropped_and_counted_when_the_config_says_so(bench: Bench) -> None:
    """The run goes on until it has as many whole images as were asked for."""
    await bench.daq.configure({"incomplete_images": "drop"})
    await bench.daq.reconfigured()
    try:
        path, ids = await bench.start(3), bench.next_ids(5)
        send_without(bench, ids[0])
        send_without(bench, ids[1], (0, 1))
        send_without(bench, ids[2], (2, 0), (2, 3))
        await bench.when(lambda s: s.losses.dropped_images == 2)
        assert bench.status.state is DaqState.WRITING
        send_without(bench, ids[3])
        send_without(bench, ids[4])
        assert (await bench.end()).acquisition.message == "Completed."
        assert_holds(path, bench.simulator, [ids[0], ids[3], ids[4]])
        losses = bench.daq.snapshot.losses
        assert (losses.dropped_images, losses.incomplete_images, losses.missing_packets) == (2, 2, 0)
    finally:
        await bench.stop()
        await bench.daq.configure({"incomplete_images": "write"})
        await bench.daq.reconfigured()


async def test_packets_received_are_all_accounted_for(bench: Bench) -> None:
    """Received = placed + duplicate + late + foreign + malformed + without a slot."""
    await bench.perfect_run(3)
    c = bench.counters()
    kinds = (c.packets_duplicate, c.packets_late, c.packets_foreign, c.packets_malformed, c.packets_dropped)
    assert c.packets_received == c.packets_placed + sum(kinds)
