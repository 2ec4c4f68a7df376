"""A run that is brought into each of its states and kept there, for tests of faults in every state.

A state that passes at once is kept by stopping the writer. ``python -m
tests.daq.run_states STATE FOLDER CONFIG`` does it in a service-like process of its
own, which says so and then waits to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from daq_core.config import DaqConfig
from daq_core.errors import RunFailed
from daq_core.showing.journal import Journal
from daq_core.state.status import AcquisitionState, Snapshot
from tests.daq.loopback import Bench, eventually, loopback_daq

STATES = ("IDLE", "OPENING", "WAITING_IMAGES", "ACQUIRING_IMAGES", "WRITING", "FLUSHING_IMAGES")
N_SENT = 3


@contextlib.asynccontextmanager
async def run_in(bench: Bench, state: str) -> AsyncIterator[Path]:
    """Bring a run into a state while the body runs; gives the path of its file, IDLE: of none."""
    path = bench.new_path()
    tasks: list[asyncio.Task[Path]] = []
    frozen: list[int] = []

    def freeze() -> None:
        frozen.append(writer := bench.writer)
        os.kill(writer, signal.SIGSTOP)

    if state == "OPENING":
        tasks.append(asyncio.create_task(start_and_freeze(bench, path, freeze)))
        await bench.when(lambda s: s.status.pending is not None)
    elif state != "IDLE":
        await bench.start(N_SENT if state == "FLUSHING_IMAGES" else 0, path)
        if state in ("ACQUIRING_IMAGES", "FLUSHING_IMAGES"):
            freeze()
        if state != "WAITING_IMAGES":
            await bench.send(bench.next_ids(N_SENT))
            await bench.until(AcquisitionState(state))
        if state == "WRITING":
            await bench.until_written(N_SENT)
    try:
        yield path
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for task in tasks:
            with contextlib.suppress(RunFailed):
                await task


async def start_and_freeze(bench: Bench, path: Path, freeze: Callable[[], None]) -> Path:
    """Start a run whose writer stands still from the moment the request is accepted."""

    def look(snapshot: Snapshot) -> None:
        if snapshot.status.pending is not None:
            unsubscribe()
            freeze()

    unsubscribe = bench.daq.subscribe(look)
    return await bench.start(N_SENT, path)


async def stay_in(state: str, folder: Path, config: DaqConfig) -> None:
    async with loopback_daq(config, folder, state_dir=folder) as bench:
        if state == "CONFIGURING":
            await bench.daq.configure({"image_timeout_s": 0.25})
            print(bench.mark, folder, flush=True)
            await asyncio.Event().wait()
        async with run_in(bench, state) as path:
            if state != "IDLE":  # a start is answered when it is noted: before that nobody was promised a run
                await eventually(lambda: len(Journal(folder).unended) == 1)
            print(bench.mark, path, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(stay_in(sys.argv[1], Path(sys.argv[2]), DaqConfig.load(Path(sys.argv[3]))))
