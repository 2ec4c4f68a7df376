"""Changing the config of a running Daq: the new geometry holds at once, a failure can be repaired."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daq_core.errors import Busy, InvalidConfig, Unavailable
from daq_core.status import DaqState
from ioc.ports import LOOPBACK, free_ports
from tests.loopback import STOP_LIMIT_S, Bench, assert_holds, eiger, jungfrau, loopback_daq

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with loopback_daq(eiger(16, 2), tmp_path_factory.mktemp("configure")) as bench:
        yield bench


async def test_a_partial_change_is_taken_up_and_the_next_run_is_exact(bench: Bench) -> None:
    """Another bit depth, then other positions: the image gets larger, with gaps, a module turned."""
    await bench.perfect_run(3)
    positions = {"0": [513, 0, 0, 255], "1": [1036, 258, 523, 3]}
    for changes in (
        {"bit_depth": 8},
        {"image_pixel_height": 260, "image_pixel_width": 1040, "module_positions": positions},
    ):
        receiver, bench.snapshots[:] = bench.receiver, []
        config = await bench.daq.configure(changes)
        assert config.as_dict() | changes == config.as_dict()
        assert bench.status.state is DaqState.UNKNOWN
        await bench.daq.reconfigured()
        assert bench.receiver != receiver
        assert [state for state, _ in bench.states()] == [DaqState.UNKNOWN, DaqState.READY]
        await bench.perfect_run(3)


async def test_a_change_while_another_is_applied_is_refused(bench: Bench) -> None:
    await bench.daq.configure({"image_timeout_s": 0.4})
    with pytest.raises(Busy, match="being applied"):
        await bench.daq.configure({"image_timeout_s": 0.3})
    with pytest.raises(Busy, match="not ready"):
        await bench.start(1)
    await bench.daq.reconfigured()
    assert bench.daq.snapshot.config.image_timeout_s == 0.4
    await bench.perfect_run(1)


async def test_a_change_during_a_run_is_refused_and_the_run_goes_on(bench: Bench) -> None:
    path, ids, before = await bench.start(4), bench.next_ids(4), bench.daq.snapshot
    await bench.send(ids[:2])
    with pytest.raises(Busy, match="while a run is going on"):
        await bench.daq.configure({"bit_depth": 32})
    assert bench.daq.snapshot.config is before.config
    assert bench.daq.snapshot.config_id == before.config_id
    await bench.send(ids[2:])
    await bench.end()
    assert_holds(path, bench.simulator, ids)


async def test_a_config_that_cannot_be_is_refused_and_nothing_changes(bench: Bench) -> None:
    before = bench.daq.snapshot
    for changes in (
        {"bit_depth": 7},
        {"start_udp_port": 70_000},
        {"module_positions": {"0": [0, 0, 513, 255], "1": [100, 0, 613, 255]}},
        {"detector_name": None},
    ):
        with pytest.raises(InvalidConfig):
            await bench.daq.configure(changes)
    assert bench.daq.snapshot.config is before.config
    assert bench.daq.snapshot.status is before.status


@pytest.mark.parametrize("changes", [{"writer_user_id": -1}, {"log_level": "debug"}, {}])
async def test_what_the_receiver_does_not_care_about_needs_no_restart(
    bench: Bench, changes: dict[str, object]
) -> None:
    receiver, before = bench.receiver, bench.daq.snapshot
    await bench.daq.configure(changes)
    assert bench.status.state is DaqState.READY
    await bench.daq.reconfigured()
    assert bench.receiver == receiver
    assert bench.daq.snapshot.deployment.status == "SUCCESS"
    assert bench.daq.snapshot.config_id > before.config_id
    await bench.perfect_run(1)


async def test_the_same_full_config_again_stays_ready(bench: Bench) -> None:
    receiver, config = bench.receiver, bench.daq.snapshot.config
    assert await bench.daq.configure(config.as_dict()) == config
    assert bench.status.state is DaqState.READY
    assert bench.receiver == receiver


async def test_a_full_config_with_its_files_named_but_empty_restarts_nothing(bench: Bench) -> None:
    """A client that reads the config and posts it back at each scan, with every key that there is."""
    config = bench.daq.snapshot.config
    receiver = bench.receiver
    everything = config.model_dump(mode="json")
    assert everything["gain_file"] == everything["pedestal_file"] == ""
    assert await bench.daq.configure(everything) == config
    assert bench.status.state is DaqState.READY
    assert bench.receiver == receiver
    await bench.perfect_run(2)


async def test_a_config_whose_udp_port_is_taken_is_an_error_that_another_repairs(bench: Bench) -> None:
    working = bench.daq.snapshot.config.start_udp_port
    taken = free_ports(2, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, taken + 1))
        await bench.daq.configure({"start_udp_port": taken})
        with pytest.raises(Unavailable, match=f"UDP port {taken + 1} "):
            await bench.daq.reconfigured()
        assert bench.daq.snapshot.deployment.status == "ERROR"
        assert bench.status.state is DaqState.UNKNOWN
        assert str(taken + 1) in bench.status.reason
        with pytest.raises(Busy, match=str(taken + 1)):
            await bench.start(1)
        with pytest.raises(Unavailable, match=rf"Stopped, but not READY: .*{taken + 1}"):
            await asyncio.wait_for(bench.daq.stop(), STOP_LIMIT_S)
        await bench.daq.configure({"start_udp_port": working})
        await bench.daq.reconfigured()
    assert bench.daq.snapshot.deployment.status == "SUCCESS"
    await bench.perfect_run(2)


async def test_a_udp_port_that_becomes_free_repairs_the_config_by_itself(bench: Bench) -> None:
    taken = free_ports(2, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, taken))
        await bench.daq.configure({"start_udp_port": taken})
        with pytest.raises(Unavailable):
            await bench.daq.reconfigured()
        await bench.daq.configure({"start_udp_port": taken})  # the same again is tried again
        assert bench.daq.snapshot.deployment.status == "RUNNING"
        with pytest.raises(Unavailable):
            await bench.daq.reconfigured()
    await bench.until(DaqState.READY, timeout_s=30)
    assert bench.daq.snapshot.deployment.status == "SUCCESS"
    await bench.perfect_run(2)


async def test_a_ring_larger_than_the_memory_is_an_error_that_another_repairs(bench: Bench) -> None:
    await bench.daq.configure({"ram_buffer_gb": 4096})
    with pytest.raises(Unavailable, match="ram_buffer_gb"):
        await bench.daq.reconfigured()
    assert bench.status.state is DaqState.UNKNOWN
    await bench.daq.configure({"ram_buffer_gb": 0.05})
    await bench.daq.reconfigured()
    await bench.perfect_run(2)


async def test_a_service_whose_udp_port_is_taken_does_not_start(tmp_path: Path) -> None:
    """The error names the port; no process is left behind."""
    config = jungfrau()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, config.start_udp_port))
        with pytest.raises(Unavailable, match=f"UDP port {config.start_udp_port} "):
            async with loopback_daq(config, tmp_path):
                pass
