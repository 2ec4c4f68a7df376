"""Reads every PV of the stock areaDetector classes of ophyd and pyepics, in a process of its own.

Run as ``python -m tests.bluesky.area_signals PREFIX``; it prints {class: {PV: value, or null where it is
not served}}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

WITHIN_S = 30.0


def main(prefix: str) -> None:
    print(json.dumps(dict(read_all(prefix)), default=str))


def read_all(prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import epics
    from epics.devices import AD_Camera, AD_FilePlugin
    from ophyd.areadetector import cam, plugins

    cameras = (cam.CamBase, cam.AreaDetectorCam)
    files = (plugins.PluginBase, plugins.PluginBase_V34, plugins.HDF5Plugin, plugins.HDF5Plugin_V34)
    names = {f"{prefix}cam1:": cameras, f"{prefix}HDF1:": files}
    for start, classes in names.items():
        for kind in classes:
            yield kind.__name__, _values(epics, sorted(set(_pvs_of(kind, start))))
    for start, device in ((f"{prefix}cam1:", AD_Camera), (f"{prefix}HDF1:", AD_FilePlugin)):
        yield device.__name__, _values(epics, [start + name for name in device.attrs])


def _pvs_of(kind: Any, start: str) -> Iterator[str]:
    """Yield the PVs of a device class and of the devices in it, lazy ones too."""
    from ophyd import Component, DynamicDeviceComponent, EpicsSignal
    from ophyd.areadetector.base import EpicsSignalWithRBV

    for name in kind.component_names:
        part = getattr(kind, name)
        if isinstance(part, DynamicDeviceComponent):
            parts = [(cls, suffix) for cls, suffix, _ in part.defn.values()]
        else:
            assert isinstance(part, Component)
            parts = [(part.cls, part.suffix)]
        for cls, suffix in parts:
            if suffix is None:
                continue  # a signal of ophyd's own
            if hasattr(cls, "component_names"):
                yield from _pvs_of(cls, start + suffix)
            else:
                yield start + suffix
                if issubclass(cls, EpicsSignalWithRBV) and issubclass(cls, EpicsSignal):
                    yield start + suffix + "_RBV"


def _values(epics: Any, names: list[str]) -> dict[str, Any]:
    pvs = {name: epics.PV(name) for name in names}
    return {
        name: repr(pv.get(timeout=WITHIN_S)) if pv.wait_for_connection(timeout=WITHIN_S) else None
        for name, pv in pvs.items()
    }


if __name__ == "__main__":
    main(sys.argv[1])
