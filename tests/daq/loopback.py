"""A real Daq on loopback, with its processes and a software detector, for tests of the core.

``async with loopback_daq(jungfrau()) as bench:`` gives a :class:`Bench`; when it
is left, every process that was started for it must be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from daq_core.processes.forks import ForkServer
from daq_core.simulating.simulator import Simulator
from daq_core.state.options import DaqOptions
from daq_core.state.status import AcquisitionState, Counters, DaqState, DaqStatus, Snapshot, WriteRequest
from ioc.program.ports import LOOPBACK, free_ports
from tests.daq.kept_forks import MARK, KeptForks, drop, kept_pids, new_mark

STOP_LIMIT_S = 5.0


def jungfrau(
    n_modules: int = 1, *, rows: int = 64, gap: int = 0, flips: Sequence[str] = (), **changes: Any
) -> DaqConfig:
    """Modules below each other, `gap` pixels around them, and each one's flip: "", "x", "y" or "xy"."""
    positions = {}
    for module in range(n_modules):
        top = gap + module * (rows + gap)
        positions[str(module)] = _corners(gap, top, 1024, rows, flips[module] if flips else "")
    values = {
        "detector_name": "JF",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": gap + n_modules * (rows + gap),
        "image_pixel_width": 1024 + 2 * gap,
        "n_modules": n_modules,
        "module_positions": positions,
    }
    return _config(values | changes)


def eiger(
    bit_depth: int, n_modules: int = 1, *, gap: int = 0, flips: Sequence[str] = (), **changes: Any
) -> DaqConfig:
    """Half modules side by side, `gap` pixels around them, and each one's flip: "", "x", "y" or "xy"."""
    positions = {}
    for module in range(n_modules):
        left = gap + module * (514 + gap)
        positions[str(module)] = _corners(left, gap, 514, 256, flips[module] if flips else "")
    values = {
        "detector_name": "EG",
        "detector_type": "eiger",
        "bit_depth": bit_depth,
        "image_pixel_height": 256 + 2 * gap,
        "image_pixel_width": gap + n_modules * (514 + gap),
        "n_modules": n_modules,
        "module_positions": positions,
    }
    return _config(values | changes)


def _corners(left: int, top: int, width: int, height: int, flip: str) -> list[int]:
    x, y = [left, left + width - 1], [top, top + height - 1]
    if "x" in flip:
        x.reverse()
    if "y" in flip:
        y.reverse()
    return [x[0], y[0], x[1], y[1]]


def _config(values: dict[str, Any]) -> DaqConfig:
    defaults = {"writer_user_id": 0, "ram_buffer_gb": 0.05}
    if "start_udp_port" not in values:
        defaults["start_udp_port"] = free_ports(int(values["n_modules"]), socket.SOCK_DGRAM)
    return DaqConfig.parse(defaults | values)


@dataclass
class Bench:
    """A running Daq, the folder it writes to, and what it has shown."""

    daq: Daq
    folder: Path
    mark: str
    snapshots: list[Snapshot] = field(default_factory=list, repr=False)  # thousands, and pytest asks often
    _next_id: int = 1
    _n_files: int = 0
    _simulators: dict[str, Simulator] = field(default_factory=dict)

    @property
    def status(self) -> DaqStatus:
        return self.daq.snapshot.status

    @property
    def simulator(self) -> Simulator:
        """The detector of the present config."""
        config = self.daq.snapshot.config
        return self._simulators.setdefault(config.as_json(), Simulator(config))

    def new_path(self) -> Path:
        self._n_files += 1
        return self.folder / f"run-{self._n_files:03}.h5"

    def next_ids(self, n_images: int) -> list[int]:
        """Return frame numbers that were not used yet."""
        first, self._next_id = self._next_id, self._next_id + n_images
        return list(range(first, self._next_id))

    async def start(self, n_images: int, path: Path | None = None) -> Path:
        """Start a run; 0 images: until it is stopped."""
        path = path or self.new_path()
        if n_images:
            await self.daq.start(WriteRequest.checked(str(path), n_images))
        else:
            await self.daq.start(WriteRequest(str(path), 0, run_id=1))
        return path

    async def send(self, ids: Sequence[int], rate_hz: float = 200) -> None:
        await asyncio.to_thread(self.simulator.send, len(ids), rate_hz, first_id=ids[0])

    async def end(self, timeout_s: float = 10) -> DaqStatus:
        """Wait for the end of the run; a run that hangs fails the test."""
        return await asyncio.wait_for(self.daq.wait(), timeout_s)

    async def perfect_run(self, n_images: int = 20) -> Path:
        """Take a run, demand that every pixel of every image is in its file, and return that."""
        path, ids = await self.start(n_images), self.next_ids(n_images)
        await self.send(ids)
        status = await self.end()
        assert (status.state, status.acquisition.message) == (DaqState.READY, "Completed.")
        assert status.acquisition.n_write_completed == n_images
        assert_holds(path, self.simulator, ids)
        return path

    async def stop(self) -> DaqStatus:
        """Stop, and demand that READY comes in time."""
        began = time.monotonic()
        status = await asyncio.wait_for(self.daq.stop(), 2 * STOP_LIMIT_S)
        assert time.monotonic() - began < STOP_LIMIT_S
        assert status.state is DaqState.READY
        return status

    async def until(self, *wanted: object, timeout_s: float = 10) -> Snapshot:
        """Wait until one of these is the state of the DAQ or of its acquisition."""
        return await self.when(
            lambda s: s.status.state in wanted or s.status.acquisition.state in wanted, timeout_s
        )

    async def when(self, condition: Callable[[Snapshot], bool], timeout_s: float = 10) -> Snapshot:
        """Wait for a snapshot of which something is true: the present one, or one that is shown later."""
        seen: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

        def look(snapshot: Snapshot) -> None:
            if not seen.done() and condition(snapshot):
                seen.set_result(snapshot)

        unsubscribe = self.daq.subscribe(look)
        try:
            look(self.daq.snapshot)
            return await asyncio.wait_for(seen, timeout_s)
        finally:
            unsubscribe()

    async def until_written(self, n_images: int, timeout_s: float = 10) -> None:
        """Wait until a run has written that many images."""
        await self.when(lambda s: s.status.acquisition.n_write_completed >= n_images, timeout_s)

    def counters(self) -> Counters:
        """Return the counters of this moment; those of the snapshot may be a heartbeat old."""
        return self.daq.counters()

    async def counted(self, n_packets: int, timeout_s: float = 10) -> Counters:
        """Wait until the receiver has seen that many packets since it was started."""
        await eventually(lambda: self.counters().packets_received >= n_packets, timeout_s)
        return self.counters()

    def states(self) -> list[tuple[DaqState, AcquisitionState]]:
        """Return the states shown so far, each as often as it was entered."""
        shown = [(s.status.state, s.status.acquisition.state) for s in self.snapshots]
        return [state for state, _ in itertools.groupby(shown)]

    # ------------------------------------------------------------- processes

    @property
    def receiver(self) -> int:
        return self._only("daq-receiver")

    @property
    def fork_server(self) -> int:
        return self._only("daq-forks")

    @property
    def writer(self) -> int:
        return self._only("daq-writer")

    @property
    def writers(self) -> list[int]:
        return [pid for pid, name in marked_processes(self.mark).items() if name == "daq-writer"]

    def _only(self, wanted: str) -> int:
        (pid,) = [pid for pid, name in marked_processes(self.mark).items() if name == wanted]
        return pid


@contextlib.asynccontextmanager
async def loopback_daq(
    config: DaqConfig, folder: Path, forks: ForkServer | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """Run a Daq that receives on loopback; at its end no process of it may be left but a kept fork server."""
    if forks is None:
        forks = kept = KeptForks()
        mark = kept.mark
    else:
        mark = new_mark()
    os.environ[MARK] = mark
    try:
        async with Daq(config, DaqOptions(udp_host=LOOPBACK, **options), forks) as daq:
            bench = Bench(daq, folder, mark)
            daq.subscribe(bench.snapshots.append)
            yield bench
    finally:
        try:
            await no_processes_left(mark)
        except BaseException:
            drop()
            kill_all(mark)
            raise


async def no_processes_left(mark: str, timeout_s: float = 5) -> None:
    """Demand that all processes with a mark end by themselves, but for a fork server that is kept."""

    def left() -> dict[int, str]:
        return {pid: name for pid, name in marked_processes(mark).items() if pid not in kept_pids()}

    with contextlib.suppress(TimeoutError):
        await eventually(lambda: not left(), timeout_s)
    assert left() == {}


async def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for something that announces itself to nobody, e.g. in another process."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)


def kill_all(mark: str) -> None:
    """Kill what a failed test has left; by their own pids."""
    for pid in marked_processes(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked_processes(mark: str) -> dict[int, str]:
    """Return pid → name of the processes that were started with a mark, zombies left out."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:  # it ended meanwhile
            continue
    return found


@contextlib.contextmanager
def standing_still(pids: Iterable[int]) -> Iterator[None]:
    """Stop processes, and let them go on at the end; one that is gone is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def assert_holds(
    path: Path,
    simulator: Simulator,
    ids: Iterable[int],
    *,
    lost: Mapping[int, npt.NDArray[np.bool_]] | None = None,
    n_missing: Mapping[int, int] | None = None,
) -> None:
    """Demand that a file holds these images of a simulator in this order, every pixel, and nothing else.

    Parameters
    ----------
    lost : image id → (H, W) bool, pixels whose packets were lost: they must be 0
    n_missing : image id → number of packets that were lost
    """
    ids, lost, n_missing = list(ids), lost or {}, n_missing or {}
    with h5py.File(path) as file:
        data = file["entry/data"]
        found = data["image_id"][:].tolist()
        assert found == ids
        assert data["missing_packets"][:].tolist() == [n_missing.get(i, 0) for i in ids]
        assert data["status"][:].tolist() == [int(i in n_missing) for i in ids]
        assert len(data["data"]) == len(data["timestamp"]) == len(ids)
        for image_id, pixels in zip(ids, data["data"], strict=True):
            expected = simulator.image(image_id)
            if image_id in lost:
                expected[lost[image_id]] = 0
            np.testing.assert_array_equal(pixels, expected, err_msg=f"image {image_id}")
