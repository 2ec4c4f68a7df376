"""A Bluesky count with a stock ophyd-async detector, its images found by way of the documents.

The device is ophyd-async's own AreaDetector, pointed at the PVs of std-daq-ioc. What is
special is the trigger alone: std-daq-ioc waits for the detector's images and triggers
nothing, so whatever makes the detector send is started once the DAQ is armed. Here that
is the project's simulator; at a beamline put your own trigger into ``TriggeredAcquire``.

Run it beside a service that listens on the ports of the same config::

    std-daq-ioc serve --config jungfrau.json --prefix X02DA:
    python examples/ophyd_async_detector.py --config jungfrau.json --prefix X02DA: --folder /tmp/scan
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import bluesky.plans as bp
import h5py
from bluesky.run_engine import RunEngine, call_in_bluesky_event_loop
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider
from ophyd_async.epics.adcore import ADAcquireLogic, ADBaseIO, ADWriterFactory, AreaDetector

from daq_core.config import DaqConfig
from daq_core.simulator import Simulator

Documents = list[tuple[str, dict[str, Any]]]


class SimulatedTrigger:
    """Makes the simulated detector send one image, the next one at each call."""

    def __init__(self, config_file: Path) -> None:
        self._simulator = Simulator(DaqConfig.load(config_file), host="127.0.0.1")
        self._next_id = 1

    def __call__(self) -> None:
        self._simulator.send(1, rate_hz=100, first_id=self._next_id)
        self._next_id += 1


class TriggeredAcquire(ADAcquireLogic):
    """Stock Acquire; the trigger is sent once the DAQ waits for images."""

    def __init__(self, driver: ADBaseIO, trigger: Callable[[], None]) -> None:
        super().__init__(driver)
        self._trigger = trigger

    async def start_acquiring(self) -> None:
        await super().start_acquiring()
        await asyncio.to_thread(self._trigger)  # it blocks, and the run engine's loop must not


def make_detector(prefix: str, folder: Path, trigger: Callable[[], None]) -> AreaDetector:
    """Make the device: ``<prefix>cam1:`` and ``<prefix>HDF1:``, files named detector.h5 in `folder`."""
    driver = ADBaseIO(prefix + "cam1:")
    return AreaDetector(
        driver,
        prefix,
        ADWriterFactory.hdf(StaticPathProvider(StaticFilenameProvider("detector"), folder)),
        acquire_logic=TriggeredAcquire(driver, trigger),
        name="detector",
    )


def images(documents: Documents) -> Iterator[Any]:
    """Yield the images of a run in their order, (rows, columns), read from the file the documents name."""
    resources = {doc["uid"]: doc for name, doc in documents if name == "stream_resource"}
    for name, doc in documents:
        if name == "stream_datum":
            resource = resources[doc["stream_resource"]]
            with h5py.File(unquote(urlparse(resource["uri"]).path)) as file:
                data = file[resource["parameters"]["dataset"]]
                yield from data[doc["indices"]["start"] : doc["indices"]["stop"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Count with ophyd-async, and read the images back.")
    parser.add_argument("--config", type=Path, required=True, help="the service's config, for the simulator")
    parser.add_argument("--prefix", required=True, help="prefix of the service's PVs: X02DA:")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the file")
    parser.add_argument("--points", type=int, default=3, help="images to take")
    options = parser.parse_args()

    documents: Documents = []
    engine = RunEngine({})
    engine.subscribe(lambda name, document: documents.append((name, document)))
    detector = make_detector(options.prefix, options.folder.resolve(), SimulatedTrigger(options.config))
    call_in_bluesky_event_loop(detector.connect())
    engine(bp.count([detector], num=options.points))

    for point, image in enumerate(images(documents), 1):
        print(f"point {point}: {image.shape[0]} x {image.shape[1]} {image.dtype}, sum {image.sum()}")


if __name__ == "__main__":
    main()
