"""Changing the config of a running Daq: the new geometry holds at once, a failure can be repaired."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daq_core.control import daq, deployment
from daq_core.errors import Busy, InvalidConfig, InvalidRequest, Unavailable
from daq_core.pipeline.pipeline import Former, Pipeline
from daq_core.receiving.handle import ReceiverProcess
from daq_core.receiving.task import ReceiverTask
from daq_core.state.options import DaqOptions
from daq_core.state.status import DaqState
from ioc.program.ports import LOOPBACK, free_ports
from tests.daq.loopback import Bench, assert_holds, eiger, jungfrau, loopback_daq

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
        *before, during, after = [state for state, _ in bench.states()]  # counters are shown at any time
        assert (set(before) <= {DaqState.READY}, during, after) == (True, DaqState.UNKNOWN, DaqState.READY)
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


async def test_a_config_whose_udp_port_is_held_is_refused_with_the_program_that_holds_it(
    bench: Bench,
) -> None:
    before, receiver = bench.daq.snapshot, bench.receiver
    taken = free_ports(2, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, taken + 1))
        with pytest.raises(
            Unavailable, match=rf"UDP port {taken + 1} .* held by .*\(process {os.getpid()}\)"
        ):
            await bench.daq.configure({"start_udp_port": taken})
    assert bench.daq.snapshot.config is before.config
    assert bench.daq.snapshot.deployment == before.deployment
    assert (bench.status.state, bench.receiver) == (DaqState.READY, receiver)


async def test_a_config_may_take_ports_that_its_own_receiver_has(bench: Bench) -> None:
    ports = free_ports(3, socket.SOCK_DGRAM)
    for first in (ports, ports + 1):
        await bench.daq.configure({"start_udp_port": first})
        await bench.daq.reconfigured()
    await bench.perfect_run(1)


async def test_a_ring_larger_than_the_memory_is_refused_and_nothing_changes(bench: Bench) -> None:
    before, receiver = bench.daq.snapshot, bench.receiver
    with pytest.raises(Unavailable, match=r"No memory .* Set ram_buffer_gb in the config to"):
        await bench.daq.configure({"ram_buffer_gb": 4000})
    assert bench.daq.snapshot.config is before.config
    assert (bench.status.state, bench.receiver) == (DaqState.READY, receiver)
    await bench.perfect_run(1)


async def test_a_user_that_files_may_not_belong_to_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(InvalidRequest, match="Cannot write as writer_user_id=12345"):
        await bench.daq.configure({"writer_user_id": 12345})
    assert bench.daq.snapshot.config.writer_user_id != 12345


@contextlib.contextmanager
def taken_after_the_look(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Another program takes a port in the moment after it was found free."""
    look = deployment.check_runnable
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:

        def look_and_lose(*arguments: Any, **more: Any) -> None:
            look(*arguments, **more)
            occupant.bind((LOOPBACK, port))

        monkeypatch.setattr(deployment, "check_runnable", look_and_lose)
        yield occupant
    monkeypatch.undo()


async def test_a_config_that_does_not_come_up_gives_way_to_the_one_before_and_all_say_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.daq.snapshot
    port = free_ports(2, socket.SOCK_DGRAM)
    with taken_after_the_look(port + 1, monkeypatch):
        await bench.daq.configure({"start_udp_port": port})
        accepted = bench.daq.snapshot
        assert accepted.config.start_udp_port == port
        with pytest.raises(Unavailable, match=rf"UDP port {port + 1} .* The one before it is in use"):
            await bench.daq.reconfigured()
    now = bench.daq.snapshot
    assert now.config == before.config
    assert now.ran == before.config
    assert now.status.state is DaqState.READY
    assert now.config_id > accepted.config_id
    assert (now.deployment.status, now.deployment.config_id) == ("ERROR", accepted.config_id)
    assert f"UDP port {port + 1}" in now.deployment.message
    assert f"the config {accepted.config_id} does not run: UDP port {port + 1}" in now.health.warning
    assert f"(process {os.getpid()})" in now.health.warning
    assert now.health.config in now.health.warning
    await bench.perfect_run(2)
    await bench.daq.configure({"image_timeout_s": 0.45})
    await bench.daq.reconfigured()
    assert bench.daq.snapshot.health.config == ""
    assert bench.daq.snapshot.deployment.status == "SUCCESS"


async def test_a_config_that_loses_its_port_and_the_one_before_it_comes_up_when_that_is_free_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.daq.snapshot.config
    port = free_ports(2, socket.SOCK_DGRAM)
    go_back = Pipeline.go_back
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:

        async def lose_and_go_back(pipeline: Pipeline, former: Former) -> None:
            other.bind((LOOPBACK, former.config.start_udp_port))
            await go_back(pipeline, former)

        with taken_after_the_look(port, monkeypatch):
            monkeypatch.setattr(Pipeline, "go_back", lose_and_go_back)
            await bench.daq.configure({"start_udp_port": port})
            with pytest.raises(Unavailable, match="The one before it does not run either: UDP port"):
                await bench.daq.reconfigured()
        assert bench.status.state is DaqState.UNKNOWN
        with pytest.raises(Unavailable, match=f"Stopped, but not READY: .*{before.start_udp_port}"):
            await bench.daq.stop()
    await bench.until(DaqState.READY, timeout_s=60)
    assert bench.daq.snapshot.config == before
    await bench.perfect_run(1)


@pytest.mark.parametrize("is_filled", [False, True])
async def test_receivers_that_die_while_they_fill_the_ring_bring_back_the_config_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_filled: bool
) -> None:
    """As the kernel kills them in a container whose limit is hidden; later it is no fault of the config."""
    before = bench.daq.snapshot.config
    monkeypatch.setattr(Pipeline, "is_filled", property(lambda pipeline: is_filled))
    await bench.daq.configure({"image_timeout_s": 0.31})
    await bench.daq.reconfigured()
    new = bench.daq.snapshot.config
    for _ in range(2):
        killed = bench.receiver
        os.kill(killed, signal.SIGKILL)
        await bench.when(lambda now: now.status.receiver_down, timeout_s=60)
        await bench.until(DaqState.READY, timeout_s=60)
    now = bench.daq.snapshot
    assert now.config == (new if is_filled else before)
    assert ("receiver lost twice" in now.health.config) == (not is_filled)
    monkeypatch.undo()
    await bench.perfect_run(1)


async def test_a_stop_does_not_wait_for_a_config_whose_receiver_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, start = bench.daq.snapshot.config, ReceiverProcess.start

    async def hang(channel: socket.socket, task: ReceiverTask) -> ReceiverProcess:
        if task.config["image_timeout_s"] == 0.77:
            with channel:
                await asyncio.Event().wait()
        return await start(channel, task)

    monkeypatch.setattr(ReceiverProcess, "start", hang)
    monkeypatch.setattr(daq, "SETTLE_S", 0.1)
    monkeypatch.setattr(daq, "READY_S", 60)
    await bench.daq.configure({"image_timeout_s": 0.77})
    assert (await bench.daq.stop()).state is DaqState.READY
    assert bench.daq.snapshot.config == before
    assert "stopped before it ran" in bench.daq.snapshot.deployment.message
    await bench.perfect_run(1)


async def test_a_start_whose_config_does_not_run_takes_the_first_other_that_does(tmp_path: Path) -> None:
    """What only running shows: here a port that another program took after it was looked at."""
    first, second, third = (jungfrau() for _ in range(3))
    options = DaqOptions(udp_host=LOOPBACK)
    with contextlib.ExitStack() as held:
        for config in (first, second):
            occupant = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            occupant.bind((LOOPBACK, config.start_udp_port))
        async with daq.Daq(first, options, others=[second, third]) as running:
            now = running.snapshot
    assert now.config == now.ran == third
    assert now.status.state is DaqState.READY
    assert (now.deployment.status, now.deployment.config_id) == ("SUCCESS", now.config_id)
    assert f"does not run: UDP port {first.start_udp_port}" in now.health.warning


async def test_a_service_whose_udp_port_is_taken_does_not_start(tmp_path: Path) -> None:
    """The error names the port; no process is left behind."""
    config = jungfrau()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, config.start_udp_port))
        with pytest.raises(Unavailable, match=f"UDP port {config.start_udp_port} "):
            async with loopback_daq(config, tmp_path):
                pass
