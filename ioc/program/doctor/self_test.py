"""The self-test: which rate of a config's images this machine takes from the simulator without a loss.

The DAQ is the real one, with its receiver, ring and writer processes, on free
ports of loopback; the simulator is a process of its own, and shares the cores
with them, so a detector on the network leaves more of the machine to the DAQ. A trial
counts only when every packet sent was placed, no image was dropped, and, with a
file, its ids, its status and some images' pixels are those that were sent. Its
rate is that of the whole trial, to the last image in its place: what ring and socket buffers
hold makes no rate higher.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from daq_core.detectors import is_stream
from daq_core.errors import DaqError, Unavailable
from daq_core.files import places
from daq_core.files.output import space_left
from daq_core.processes.forks import ForkServer
from daq_core.simulating.simulator import Simulator
from daq_core.state.losses import Losses
from daq_core.state.options import DaqOptions
from daq_core.state.receive_threads import ReceiveThreads
from daq_core.state.status import AcquisitionState, WriteRequest
from ioc.program.doctor.sender import SenderProcess
from ioc.program.ports import LOOPBACK, free_ports

WARM_UP = 40, 20.0  # images, and images a second: meanwhile the ring gets its pages
FASTEST = 0.0  # a rate: as fast as the simulator can
N_STEPS = 4  # of each search after the first trial; lossless and lossy then differ by a fifth
RANGE = 16  # a search begins between the simulator's own rate and a sixteenth of it
REST = 0.9  # of the rate found, for the last, long trial
MAX_REPEATS = 3
MOST_BYTES = 4e9  # of a trial's file
N_COMPARED = 5
SPARE_S = 15.0  # for trials that end slowly because they lost something
PATIENCE_S = 3.0  # for what was sent to arrive


class Lost(DaqError):
    """A trial lost something; the text says what."""


@dataclass(frozen=True)
class Reached:
    """The highest rate at which nothing was lost.

    limit : what was lost above it, or that nothing was lost however fast the simulator sent
    n_images, seconds : of the trial that shows it
    """

    images_per_second: float
    bytes_per_second: float
    n_images: int
    seconds: float
    limit: str


@dataclass(frozen=True)
class SelfTest:
    """What the self-test found; rates are of whole images."""

    detector: str
    image_bytes: int
    to_memory: Reached
    to_file: Reached
    n_compared: int
    """Images of the last file that were compared pixel by pixel."""


class Progress(Protocol):
    def __call__(self, done: int, doing: str | None = None) -> None: ...


N_TRIALS = 2 * (1 + N_STEPS) + 1
"""At most, but for repeats of the last."""

Trial = Callable[[int, float], Awaitable[float]]
"""Sends (images, rate) and returns the seconds it took; Lost when anything is missing."""


def run_self_test(
    config: DaqConfig, folder: Path, seconds: float, progress: Progress, receiver_threads: int = 0
) -> SelfTest:
    """Search the highest lossless rates, without a file and with one in a folder; leaves nothing behind.

    Raises
    ------
    DaqError  the DAQ does not run, or loses images at any rate; the text says why
    """
    threads = ReceiveThreads(receiver_threads)
    try:
        return asyncio.run(_SelfTest(on_free_ports(config), folder, seconds, progress, threads).run())
    except TimeoutError:
        raise Unavailable(
            f"The self-test did not end within {seconds + SPARE_S:.0f} s: this machine is too busy for it."
        ) from None


def on_free_ports(config: DaqConfig) -> DaqConfig:
    """Move a config to ports of loopback that nobody uses."""
    if is_stream(config):
        addresses = [f"tcp://{LOOPBACK}:{free_ports()}" for _ in config.stream_addresses]
        return config.merge({"stream_addresses": addresses})
    used = config.layout.udp_ports
    first = free_ports(max(used) - config.start_udp_port + 1, socket.SOCK_DGRAM)
    return config.merge({"start_udp_port": first})


class _SelfTest:
    """One self-test of one config."""

    def __init__(
        self, config: DaqConfig, folder: Path, seconds: float, progress: Progress, threads: ReceiveThreads
    ) -> None:
        self._options = DaqOptions(udp_host=LOOPBACK, receive_threads=threads)
        self._config = config
        self._layout = config.layout
        self._simulator = Simulator(config)
        self._folder = folder
        self._most_s = seconds + SPARE_S
        self._trial_s = seconds / (N_TRIALS + 4)  # the last is twice as long, and starting takes its time
        self._progress = progress
        self._n_done = 0
        self._n_compared = 0
        self._most_bytes = min(MOST_BYTES, (space_left(os.statvfs(folder)) or 4 * MOST_BYTES) / 4)

    async def run(self) -> SelfTest:
        with SenderProcess(self._config) as self._sender:
            async with (
                Daq(self._config, self._options, ForkServer("ERROR")) as self._running,
                asyncio.timeout(self._most_s),
            ):
                self._show("warming up")
                await asyncio.to_thread(self._sender.send, *WARM_UP)
                to_memory = await self._search("without a file", self._into_memory)
                to_file = await self._search("into a file", self._into_file)
                to_file = await self._confirm(to_file)
        return SelfTest(
            detector=self._name(),
            image_bytes=self._layout.image_bytes,
            to_memory=to_memory,
            to_file=to_file,
            n_compared=self._n_compared,
        )

    def _name(self) -> str:
        config = self._config
        height, width = self._layout.image_shape
        return f"{config.detector_type} of {config.n_modules} modules, {width} x {height} pixels"

    def _show(self, doing: str) -> None:
        self._progress(self._n_done, doing)

    # -- searching ---------------------------------------------------------------------------

    async def _search(self, where: str, trial: Trial) -> Reached:
        """Find the highest lossless rate, by halving the interval's logarithm."""
        fastest = await self._simulator_rate()
        low, high = fastest / RANGE, fastest
        best, limit = None, "the cores: nothing is lost at the full speed of the simulator"
        for step in range(1 + N_STEPS):
            rate_hz = FASTEST if step == 0 else (low * high) ** 0.5
            self._show(f"{where}, {rate_hz or fastest:.0f} images/s")
            try:
                best = await self._attempt(trial, rate_hz, rate_hz or fastest)
            except Lost as lost:
                limit, high = f"above it {lost}", rate_hz or fastest
            else:
                low = rate_hz or fastest
            self._n_done += 1
            if low == high:
                self._n_done += N_STEPS
                break
        while best is None:
            self._show(f"{where}, {low:.1f} images/s")
            try:
                best = await self._attempt(trial, low, low)
            except Lost as lost:
                low /= 2
                if low < fastest / RANGE**2:
                    raise Lost(f"Even {low:.1f} images a second do not arrive {where}: {lost}.") from None
        return replace(best, limit=limit)

    async def _simulator_rate(self) -> float:
        """Return the images a second that the simulator sends when nothing holds it back."""
        n_images = max(4, 2 * self._simulator.n_pictures)
        ids, seconds = await asyncio.to_thread(self._sender.send, n_images, FASTEST)
        await self._settle()
        return len(ids) / max(seconds, 1e-6)

    async def _attempt(
        self, trial: Trial, rate_hz: float, expected_hz: float, length: float = 1.0
    ) -> Reached:
        """Try a rate for a while; Lost when anything is missing."""
        most = int(self._most_bytes / self._layout.image_bytes)
        n_images = max(2, min(most, round(expected_hz * self._trial_s * length)))
        seconds = await trial(n_images, rate_hz)
        rate = n_images / seconds
        return Reached(rate, rate * self._layout.image_bytes, n_images, seconds, "")

    async def _confirm(self, found: Reached) -> Reached:
        """Show that a rate lasts, in a trial of twice the length; a little less where it does not."""
        rate_hz, limit = found.images_per_second * REST, found.limit
        for _ in range(MAX_REPEATS):
            self._show(f"once more, {rate_hz:.0f} images/s")
            try:
                shown = await self._attempt(self._into_file, rate_hz, rate_hz, length=2.0)
            except Lost as lost:
                limit = f"above it {lost}"
                rate_hz *= 0.7
            else:
                self._n_done += 1
                return replace(shown, limit=limit)
        raise Lost(f"No rate near {found.images_per_second:.0f} images a second lasts: {limit}.")

    # -- trials ------------------------------------------------------------------------------

    async def _into_memory(self, n_images: int, rate_hz: float) -> float:
        before = self._running.counters()
        begin, _ = await self._send(n_images, rate_hz)
        end = await self._settle()
        after = self._running.counters()
        n_whole = after.images_published - before.images_published
        incomplete = after.incomplete_images - before.incomplete_images
        if n_whole != n_images or incomplete:
            raise Lost(
                self._lost(
                    after.kernel_drops - before.kernel_drops, Losses(), n_images - n_whole + incomplete
                )
            )
        return end - begin

    async def _into_file(self, n_images: int, rate_hz: float) -> float:
        path = self._folder / f"std-daq-doctor-{os.getpid()}-{self._n_done}.h5"
        before = self._running.counters()
        try:
            await self._running.start(WriteRequest.checked(str(path), n_images))
            ended = asyncio.create_task(self._running.wait())
            begin, ids = await self._send(n_images, rate_hz)
            done, _ = await asyncio.wait({ended}, timeout=PATIENCE_S)
            if not done:
                await self._running.stop()
            status = await ended
            seconds = time.monotonic() - begin
            run, losses = status.acquisition, self._running.snapshot.losses
            if run.state is not AcquisitionState.FINISHED:
                raise DaqError(run.message)
            n_lost = n_images - run.n_write_completed + losses.incomplete_images
            drops = self._running.counters().kernel_drops - before.kernel_drops
            if n_lost or losses.dropped_images:
                raise Lost(self._lost(drops, losses, n_lost))
            await asyncio.to_thread(self._check_file, path, ids)
        finally:
            await asyncio.to_thread(self._remove, path)
        return seconds

    def _remove(self, path: Path) -> None:
        """Remove the file of a trial, and the parts that several writers made of it."""
        for file in self._folder.glob(f"{path.stem}*"):
            file.unlink()

    async def _send(self, n_images: int, rate_hz: float) -> tuple[float, range]:
        """Send images; return when the first datagram went out, and their ids."""
        ids, seconds = await asyncio.to_thread(self._sender.send, n_images, rate_hz)
        return time.monotonic() - seconds, ids

    async def _settle(self) -> float:
        """Wait until no image comes any more and none is open; return when the last one came."""
        last, seen = time.monotonic(), self._running.counters()
        quiet_s = 2 * self._config.image_timeout_s
        while time.monotonic() - last < quiet_s:
            await asyncio.sleep(0.005)
            now = self._running.counters()
            if now.images_published != seen.images_published or now.packets_received != seen.packets_received:
                last, seen = time.monotonic(), now
        return last

    def _lost(self, kernel_drops: int, losses: Losses, n_lost: int) -> str:
        if losses.dropped_images:
            return "the ring was full: the writer or its disk was too slow"
        if kernel_drops:
            return (
                "the kernel dropped packets: no core was free for the receiver, or its socket buffer is small"
            )
        return f"{n_lost} images lacked packets"

    def _check_file(self, path: Path, ids: range) -> None:
        """Compare ids and status of all images, and the pixels of some."""
        with h5py.File(path) as file:
            data = file[places.DATA]
            if not np.array_equal(data["image_id"], ids) or data["status"][:].any():
                raise DaqError(f"{path} has other images than were sent.")
            rows = np.unique(np.linspace(0, len(ids) - 1, N_COMPARED).astype(int)).tolist()
            if not self._layout.is_converted:
                for row in rows:
                    if not np.array_equal(data["data"][row], self._simulator.image(ids[row])):
                        raise DaqError(f"Image {row} of {path} has other pixels than were sent.")
                self._n_compared = len(rows)
