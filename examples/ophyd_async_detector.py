"""A Bluesky count with a stock ophyd-async detector, its images found by way of the documents.

The device is ophyd-async's own AreaDetector, pointed at the PVs of std-daq-ioc. What is
special is the trigger alone: std-daq-ioc waits for the detector's images and triggers
nothing, so whatever makes the detector send is started once the DAQ is armed. Here that
is the project's simulator; at a beamline put your own trigger into ``TriggeredAcquire``.

It needs ophyd-async[ca] and bluesky, nothing of this project: the simulator is a program that
it starts. With h5py it also reads the images back; without, it says where they are.

Run it beside a service that listens on the ports of the same config::

    std-daq-ioc serve --config jungfrau.json --prefix X02DA:
    python examples/ophyd_async_detector.py --config jungfrau.json --prefix X02DA: --folder /tmp/scan \
        --simulator .venv/bin/std-daq-ioc
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import bluesky.plans as bp
from bluesky.run_engine import RunEngine, call_in_bluesky_event_loop
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider
from ophyd_async.epics.adcore import ADAcquireLogic, ADBaseIO, ADWriterFactory, AreaDetector

try:
    import h5py
except ImportError:  # ophyd-async does not need it
    h5py = None

Documents = list[tuple[str, dict[str, Any]]]


class SimulatedTrigger:
    """Makes the simulated detector send one image, the next one at each call."""

    def __init__(self, simulator: str, config_file: Path) -> None:
        self._command = [
            simulator,
            "simulate",
            "--config",
            str(config_file),
            "--rate",
            "100",
            "--images",
            "1",
        ]
        self._next_id = 1

    def __call__(self) -> None:
        subprocess.run([*self._command, "--first-id", str(self._next_id)], check=True, capture_output=True)
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


def places(documents: Documents) -> Iterator[tuple[str, str, int]]:
    """Yield where the images of a run are, in their order: file, dataset, number in the dataset."""
    resources = {doc["uid"]: doc for name, doc in documents if name == "stream_resource"}
    for name, doc in documents:
        if name == "stream_datum":
            resource = resources[doc["stream_resource"]]
            path = unquote(urlparse(resource["uri"]).path)
            for index in range(doc["indices"]["start"], doc["indices"]["stop"]):
                yield path, resource["parameters"]["dataset"], index


def described(path: str, dataset: str, index: int) -> str:
    """Say of an image what is in it, or where it is when there is nothing to read it with."""
    if h5py is None:
        return f"{path}, {dataset}[{index}]"
    with h5py.File(path) as file:
        image = file[dataset][index]
    return f"{image.shape[0]} x {image.shape[1]} {image.dtype}, sum {image.sum()}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Count with ophyd-async, and read the images back.")
    parser.add_argument("--config", type=Path, required=True, help="the service's config, for the simulator")
    parser.add_argument("--prefix", required=True, help="prefix of the service's PVs: X02DA:")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the file")
    parser.add_argument("--simulator", default="std-daq-ioc", help="the program of this project")
    parser.add_argument("--points", type=int, default=3, help="images to take")
    options = parser.parse_args()

    documents: Documents = []
    engine = RunEngine({})
    engine.subscribe(lambda name, document: documents.append((name, document)))
    trigger = SimulatedTrigger(options.simulator, options.config)
    detector = make_detector(options.prefix, options.folder.resolve(), trigger)
    call_in_bluesky_event_loop(detector.connect())
    engine(bp.count([detector], num=options.points))

    for point, place in enumerate(places(documents), 1):
        print(f"point {point}: {described(*place)}")


if __name__ == "__main__":
    main()
