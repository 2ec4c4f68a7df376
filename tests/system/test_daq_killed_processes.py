"""kill -9 of each process in each state: one record, a readable file, and a perfect run after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import h5py
import pytest
import pytest_asyncio

from daq_core.control.interrupted import SERVICE_KILLED
from daq_core.errors import Busy, RunFailed, Unavailable
from daq_core.showing.journal import Journal
from daq_core.state.status import Acquisition, AcquisitionState, DaqState
from tests.daq.loopback import (
    Bench,
    eventually,
    jungfrau,
    kill_all,
    loopback_daq,
    marked_processes,
    no_processes_left,
)
from tests.daq.run_states import N_SENT, STATES, run_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

BACK_S = 30  # a machine that is busy takes seconds to start a process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder, state = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("state")
    async with loopback_daq(jungfrau(rows=16), folder, state_dir=state) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def bench(module_bench: Bench) -> AsyncIterator[Bench]:
    """The module's Daq; after each fault the next run must be perfect."""
    yield module_bench
    await module_bench.until(DaqState.READY, timeout_s=BACK_S)
    await module_bench.perfect_run(30)
    await eventually(lambda: not module_bench.writers)


def n_readable(path: Path) -> int:
    """Return how many images a file that was closed, or repaired, has."""
    with h5py.File(path) as file:
        assert file["entry/run/state"].asstr()[()] in ("FINISHED", "FAILED")
        return len(file["entry/data/data"])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["receiver", "writer", "fork_server"])
async def test_a_killed_process_leaves_one_record_and_a_daq_that_is_ready(
    bench: Bench, name: str, state: str
) -> None:
    if (name, state) == ("writer", "IDLE"):
        return  # there is none
    n_before = bench.daq.snapshot.log_total
    async with run_in(bench, state) as path:
        os.kill(getattr(bench, name), signal.SIGKILL)
        if name == "receiver":
            await bench.until(DaqState.UNKNOWN)
        if name == "writer":
            await bench.until(AcquisitionState.FAILED)
    await bench.until(DaqState.READY, DaqState.WRITING, timeout_s=BACK_S)
    await bench.stop()
    await bench.until(DaqState.READY, timeout_s=BACK_S)
    log = bench.daq.snapshot.log[: bench.daq.snapshot.log_total - n_before]
    if state == "IDLE":
        assert log == ()
        return
    (run,) = log
    assert run.request is not None
    assert run.request.output_file == str(path)
    if name != "fork_server":  # a run does not need that one
        assert (run.state, f"{name} lost" in run.message) == (AcquisitionState.FAILED, True)
    if path.exists() and (name, state) != ("writer", "OPENING"):
        assert n_readable(path) >= run.n_write_completed


async def test_processes_killed_while_another_config_is_taken_up_are_replaced(bench: Bench) -> None:
    for name in ("receiver", "fork_server"):
        timeout = {"receiver": 0.25, "fork_server": 0.3}[name]
        killed = getattr(bench, name)
        await bench.daq.configure({"image_timeout_s": timeout})
        with contextlib.suppress(ProcessLookupError):  # the receiver of the config before has left already
            os.kill(killed, signal.SIGKILL)
        with contextlib.suppress(Unavailable):
            await bench.daq.reconfigured()
        await bench.until(DaqState.READY, timeout_s=BACK_S)
        assert bench.daq.snapshot.config.image_timeout_s == timeout


async def test_processes_killed_while_a_run_is_being_accepted_change_nothing(bench: Bench) -> None:
    """Between the fork of the writer and its word that the path is good."""
    before = bench.status.acquisition
    for _ in range(3):
        starting = asyncio.create_task(bench.start(3))
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: bool(bench.writers), 5)
        for writer in bench.writers:
            os.kill(writer, signal.SIGKILL)
        with contextlib.suppress(RunFailed, Unavailable, Busy):
            await starting
        await bench.stop()
        if bench.status.acquisition.request == (before.request if before else None):
            assert bench.status.acquisition == before
        else:  # it had been accepted already: then it is recorded
            assert bench.daq.snapshot.log[0] == bench.status.acquisition
        before = bench.status.acquisition


# ---- the control process


async def killed_in(state: str, folder: Path, config_file: Path, fate: signal.Signals) -> Path:
    """Kill a control process whose run is in a state, and give its writer a fate; returns the file's path."""
    control = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.daq.run_states", state, str(folder), str(config_file)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert control.stdout is not None
    said = await asyncio.wait_for(control.stdout.readline(), 90)
    mark, path = said.decode().split()
    try:
        control.kill()
        await control.wait()
        for pid, name in marked_processes(mark).items():
            if name == "daq-writer":
                os.kill(pid, fate)
        await no_processes_left(mark, BACK_S)
    finally:
        kill_all(mark)
    return Path(path)


@pytest.mark.parametrize(
    ("state", "fate"),
    [
        ("IDLE", signal.SIGCONT),
        ("CONFIGURING", signal.SIGCONT),
        ("OPENING", signal.SIGCONT),
        ("OPENING", signal.SIGKILL),
        ("WAITING_IMAGES", signal.SIGKILL),
        ("ACQUIRING_IMAGES", signal.SIGCONT),
        ("ACQUIRING_IMAGES", signal.SIGKILL),
        ("WRITING", signal.SIGKILL),
        ("FLUSHING_IMAGES", signal.SIGCONT),
        ("FLUSHING_IMAGES", signal.SIGKILL),
    ],
)
async def test_a_killed_control_process_finds_its_run_at_the_next_start(
    tmp_path: Path, state: str, fate: signal.Signals
) -> None:
    config = jungfrau(rows=16)
    config_file = tmp_path / "detector.json"
    config_file.write_text(json.dumps(config.as_dict()))
    path = await killed_in(state, tmp_path, config_file, fate)
    async with loopback_daq(config, tmp_path, state_dir=tmp_path) as bench:
        if state in ("IDLE", "CONFIGURING"):
            await bench.perfect_run(10)
            assert bench.daq.snapshot.log_total == 1
            return
        found = await bench.when(lambda s: s.log_total == 1, timeout_s=BACK_S)
        check_found(found.log[0], path, state, fate)
        path.unlink(missing_ok=True)
        await bench.perfect_run(10)
    assert [run.request for run in Journal(tmp_path).newest_first()].count(found.log[0].request) == 1
    assert Journal(tmp_path).unended == ()  # it is not found again


def check_found(run: Acquisition, path: Path, state: str, fate: signal.Signals) -> None:
    """Demand that the record of an interrupted run is what its file says."""
    assert run.request is not None
    assert run.request.output_file == str(path)
    if (state, fate) == ("OPENING", signal.SIGKILL):
        assert not path.exists()
        assert run.message.startswith(f"{SERVICE_KILLED}; ")
        return
    assert run.n_write_completed == n_readable(path)
    went_on = fate is signal.SIGCONT and state in ("ACQUIRING_IMAGES", "FLUSHING_IMAGES")
    if went_on or state == "WRITING":
        assert run.n_write_completed == N_SENT
    with h5py.File(path) as file:
        assert run.state == file["entry/run/state"].asstr()[()]
    if run.state is AcquisitionState.FAILED:
        assert run.message == f"{SERVICE_KILLED}."
