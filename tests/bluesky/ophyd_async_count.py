"""Counts with stock ophyd-async: AreaDetector of ADBaseIO, and a writer of ADWriterFactory.hdf."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import bluesky.plans as bp
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider
from ophyd_async.epics.adcore import ADAcquireLogic, ADBaseIO, ADWriterFactory, AreaDetector

from tests.bluesky.bluesky_run import CountTask, engine, run, task_of


class SimulatedTrigger(ADAcquireLogic):
    """Stock Acquire; the detector sends once it is armed."""

    def __init__(self, driver: ADBaseIO, send: Callable[[], None]) -> None:
        super().__init__(driver)
        self._send = send

    async def start_acquiring(self) -> None:
        await super().start_acquiring()
        await asyncio.to_thread(self._send)


def main(task: CountTask) -> None:
    paths = StaticPathProvider(StaticFilenameProvider("counted"), Path(task.folder))
    driver = ADBaseIO(task.prefix + "cam1:")
    detector = AreaDetector(
        driver,
        task.prefix,
        ADWriterFactory.hdf(paths),
        acquire_logic=SimulatedTrigger(driver, task.trigger()),
        name="detector",
    )
    running = engine()
    call_in_bluesky_event_loop(detector.connect())
    run(running, bp.count([detector], num=task.n_points))


if __name__ == "__main__":
    main(task_of(sys.argv))
