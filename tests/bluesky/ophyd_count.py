"""Counts with stock ophyd: AreaDetectorCam, HDF5Plugin_V34, FileStoreHDF5IterativeWrite, SingleTrigger."""

from __future__ import annotations

import sys
from typing import Any

import bluesky.plans as bp
from ophyd import ADComponent, DetectorBase, SingleTrigger
from ophyd.areadetector.cam import AreaDetectorCam
from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite
from ophyd.areadetector.plugins import HDF5Plugin_V34

from tests.bluesky.bluesky_run import CountTask, engine, run, task_of


class FilePlugin(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
    pass


def main(task: CountTask) -> None:
    class Detector(SingleTrigger, DetectorBase):
        cam = ADComponent(AreaDetectorCam, "cam1:")
        hdf1 = ADComponent(FilePlugin, "HDF1:", write_path_template=task.folder)

    detector = Detector(task.prefix, name="detector", read_attrs=["hdf1"])
    detector.hdf1.read_attrs = []
    detector.cam.stage_sigs["num_images"] = task.n_images
    send = task.trigger()

    def when_acquiring(value: Any, **_: Any) -> None:
        if value == 1:
            send()

    detector.cam.acquire.subscribe(when_acquiring, run=False)
    run(engine(), bp.count([detector], num=task.n_points))


if __name__ == "__main__":
    main(task_of(sys.argv))
