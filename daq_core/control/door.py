"""The door as a face sees it: what it may ask of a DAQ, and no more.

:class:`daq_core.control.daq.Daq`, one DAQ on one machine, is behind it. Something else may be, such
as one that stands for several machines: a face is typed against this and cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from daq_core.config import DaqConfig
from daq_core.control.claim import Asked
from daq_core.pipeline.valve import Passed
from daq_core.showing.snapshots import Listener
from daq_core.state.status import DaqStatus, Snapshot, WriteRequest


class ImageValve(Protocol):
    """The valve of images; see :class:`daq_core.pipeline.valve.Valve` for what each means."""

    def open(self, n_images: int = 0) -> None: ...

    def close(self) -> None: ...

    @property
    def is_followed(self) -> bool: ...

    @property
    def is_settled(self) -> bool: ...

    @property
    def passed(self) -> Passed: ...


class Door(Protocol):
    """What faces use; :class:`daq_core.control.daq.Daq` says what each does, and what it raises."""

    @property
    def snapshot(self) -> Snapshot: ...

    def subscribe(self, listener: Listener) -> Callable[[], None]: ...

    # commands

    async def start(
        self, request: WriteRequest, asked: Asked | None = None, *, by_valve: bool = False
    ) -> DaqStatus: ...

    async def wait(self) -> DaqStatus: ...

    async def stop(self) -> DaqStatus: ...

    async def configure(self, changes: Mapping[str, object]) -> DaqConfig: ...

    async def reconfigured(self) -> None: ...

    @property
    def valve(self) -> ImageValve: ...

    # questions

    @property
    def n_stops(self) -> int: ...

    @property
    def is_taken(self) -> bool: ...

    async def flushed(self) -> None: ...

    async def look_at(self, folder: str, *, may_make: int = 0) -> str: ...

    def expect(self, folder: str) -> None: ...
