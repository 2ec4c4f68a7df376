"""A DAQ without packets, for tests of the faces: real states, snapshots and errors, images on call.

It goes through the real table of ``daq_core.state.acquisition`` and publishes every
status in between, so what a face sees of it is what it sees of the real
:class:`daq_core.control.daq.Daq`. Images arrive when a test calls :meth:`SimulatedDaq.receive`;
the file is created, but stays empty. A face is given the door of it, :class:`OnlyDoor`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from daq_core.config import DaqConfig
from daq_core.control.claim import STOPPED, Asked
from daq_core.control.door import Door, ImageValve
from daq_core.errors import Busy, InvalidRequest, RunFailed, Stopped
from daq_core.pipeline.valve import Passed
from daq_core.state import events as ev
from daq_core.state.acquisition import step
from daq_core.state.status import (
    AcquisitionState,
    Counters,
    DaqState,
    DaqStatus,
    Deployment,
    Health,
    Snapshot,
    WriteRequest,
)

Listener = Callable[[Snapshot], None]
T = TypeVar("T")


class OnlyDoor:
    """A DAQ as faces may know it: what is not in the door, or in the door's valve, is not there."""

    def __init__(self, daq: Any, members: type = Door) -> None:
        self._daq = daq
        self._members = members

    def __getattr__(self, name: str) -> Any:
        if name not in members_of(self._members):
            raise AttributeError(f"a face asks for {name}, which {self._members.__name__} has not")
        member = getattr(self._daq, name)
        return OnlyDoor(member, ImageValve) if name == "valve" else member


def members_of(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


class SimulatedValve:
    """The interface of :class:`daq_core.pipeline.valve.Valve`; there is no receiver to follow it."""

    is_open, is_followed, is_settled = False, True, True
    passed = Passed()
    _n_images = 0

    def open(self, n_images: int = 0) -> None:
        self.is_open, self._n_images, self.passed = True, n_images, Passed()

    def close(self) -> None:
        self.is_open = False

    def let_through(self, n_images: int) -> int:
        if not self.is_open:
            return 0
        room = self._n_images - self.passed.n_images if self._n_images else n_images
        n_passing = min(n_images, room)
        n_passed = self.passed.n_images + n_passing
        self.passed = Passed(n_passed, n_passed, time.time()) if n_passed else Passed()
        return n_passing


class SimulatedDaq:
    """Usage: ``async with SimulatedDaq(config) as daq: await daq.start(request); await daq.receive(3)``."""

    def __init__(self, config: DaqConfig, *, open_s: float = 0.02, restart_s: float = 0.1) -> None:
        self.open_s = open_s  # how long the creation of a file takes
        self.restart_s = restart_s  # how long the pipeline is down after `configure`
        self.n_stops = 0
        self.folders_answer = asyncio.Event()  # cleared: as a file system does that hangs
        self.folders_answer.set()
        self.unsaved = ""  # why the config is not kept
        self._listeners: list[Listener] = []
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restart: asyncio.Task[None] | None = None
        self._by_valve = False  # the run is
        self.snapshot = Snapshot(time.time(), config, _config_id(""), ran=config)
        self.valve = SimulatedValve()
        self._deploy()

    async def __aenter__(self) -> SimulatedDaq:
        self.apply(ev.PipelineReady())
        self._spawn(self._heartbeat())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def start(
        self, request: WriteRequest, asked: Asked | None = None, *, by_valve: bool = False
    ) -> DaqStatus:
        if asked is not None and asked.n_stops != self.n_stops:
            raise Stopped(STOPPED)
        step(self.snapshot.status, ev.StartRequested(request), 0)  # Busy comes before other refusals
        _check_folder(request.folder)
        self._by_valve = by_valve
        self.apply(ev.StartRequested(request))
        return await asyncio.shield(self._spawn(self._open(request)))

    async def wait(self) -> DaqStatus:
        if self.snapshot.status.state is DaqState.WRITING:
            await self._ended.wait()
        return self.snapshot.status

    async def stop(self) -> DaqStatus:
        self.n_stops += 1
        opening = self.snapshot.status.pending is not None
        status = self.apply(ev.StopRequested())
        if opening:
            await self._ended.wait()
        elif status.state is DaqState.WRITING:
            self.apply(ev.FileClosed(status.acquisition.n_write_completed))
        return self.snapshot.status

    @property
    def is_taken(self) -> bool:
        return self.snapshot.status.state is DaqState.WRITING

    def counters(self) -> Counters:
        return self.snapshot.counters

    async def flushed(self) -> None:
        """Return at once: images are on disk when they arrive."""

    async def look_at(self, folder: str, *, may_make: int = 0) -> str:
        await self.folders_answer.wait()
        try:
            _check_folder(folder)
        except InvalidRequest as refused:
            return str(refused)
        return ""

    def expect(self, folder: str) -> None:
        """Look at no disk."""

    async def configure(self, changes: Mapping[str, object]) -> DaqConfig:
        if self.snapshot.status.state is not DaqState.READY:
            raise Busy("The config cannot change while the DAQ is not READY. Stop it first.")
        config = self.snapshot.config.merge(changes)
        config_id = _config_id(self.snapshot.config_id)
        down = replace(self.snapshot.status, state=DaqState.UNKNOWN, receiver_down=True, reason="restarting")
        self.publish(config=config, config_id=config_id, status=down)
        self._restart = self._spawn(self._restarted())
        return config

    def warn_of_saving(self, trouble: str) -> None:
        self.publish(unsaved=trouble)

    async def reconfigured(self) -> None:
        if self._restart is not None:
            await asyncio.shield(self._restart)

    async def receive(self, n_images: int, *, period_s: float = 0.0) -> None:
        """Let images arrive and be written one by one; the run ends with the last one it asked for."""
        for _ in range(n_images):
            await asyncio.sleep(period_s)
            status = self.snapshot.status
            if not status.acquisition.running or status.pending is not None:
                return
            if not await self.publish_images(1) and self._by_valve:
                continue
            n = status.acquisition.n_write_completed + 1
            self.apply(ev.ImageAcquired())
            self.apply(ev.ImagesWritten(n, n - 1))
            self.apply(ev.ImagesWritten(n, n))
            assert status.acquisition.request is not None
            if n == status.acquisition.request.n_images:
                self.apply(ev.AllAcquired())
                self.apply(ev.FileClosed(n))

    async def publish_images(self, n_images: int) -> int:
        """Let images come from the detector, written or not; returns how many pass the valve."""
        counters = self.snapshot.counters
        self.publish(counters=replace(counters, images_published=counters.images_published + n_images))
        return self.valve.let_through(n_images)

    def apply(self, event: ev.Event) -> DaqStatus:
        """Make an event happen, e.g. ``WriterLost("killed")``, and show what follows from it."""
        before = self.snapshot.status
        status = step(before, event, time.time())
        ended = status.acquisition.stop_time not in (None, before.acquisition.stop_time)
        log = (status.acquisition, *self.snapshot.log)[:1000] if ended else self.snapshot.log
        self.publish(status=status, log=log, log_total=self.snapshot.log_total + ended)
        if status.state is not DaqState.WRITING:
            self._ended.set()
            self._ended = asyncio.Event()
        return status

    def publish(self, **changes: Any) -> None:
        """Replace the snapshot and tell every listener."""
        self.unsaved = changes.pop("unsaved", self.unsaved)
        snapshot = replace(self.snapshot, time=time.time(), **changes)
        health = Health(receiver_up=not snapshot.status.receiver_down, warning=self.unsaved)
        self.snapshot = replace(snapshot, health=health)
        for listener in tuple(self._listeners):
            listener(self.snapshot)

    async def _open(self, request: WriteRequest) -> DaqStatus:
        await asyncio.sleep(self.open_s)
        try:
            os.close(os.open(request.output_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as error:
            failed = self.apply(ev.OpenFailed(f"Cannot create {request.output_file}: {error.strerror}."))
            raise RunFailed(failed.acquisition.message) from None
        status = self.apply(ev.FileOpened())
        if status.acquisition.state is AcquisitionState.FLUSHING_IMAGES:  # stopped meanwhile
            status = self.apply(ev.FileClosed(0))
        return status

    async def _restarted(self) -> None:
        await asyncio.sleep(self.restart_s)
        self.apply(ev.PipelineReady())
        self._deploy()
        self.publish(ran=self.snapshot.config)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.publish()

    def _deploy(self) -> None:
        now = time.time()
        self.publish(
            deployment=Deployment(self.snapshot.config_id, "SUCCESS", "Deployment successful", now, now)
        )

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise InvalidRequest(f"Output file folder {folder} does not exist. Please create it first.")


def _config_id(before: str) -> str:
    """Name a config as a Redis stream would, always above the one before."""
    ms, last = time.time_ns() // 1_000_000, int(before.partition("-")[0] or 0)
    return f"{max(ms, last + 1)}-0"
