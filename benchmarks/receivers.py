"""The receivers under test: ours as the process it is in service, and the C references.

Both keep images in shared memory of the same size, made by the benchmark, which
looks there for the pixels afterwards. Each measures one stream of packets at a
time and raises LostError when not every packet, and every pixel, is there.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from benchmarks.cpu import process_cpu, wall
from benchmarks.detectors import free_ports
from benchmarks.figure import LostError, SkippedError
from benchmarks.traffic import Sent, Shape, Traffic
from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.processes.lines import Lines, Present, Vocabulary
from daq_core.receiving.task import Listening, NotListening, ReceiverTask
from daq_core.ring.ring import COMPLETE
from daq_core.ring.words import Word
from daq_core.simulating.simulator import Simulator

RING_BYTES = 256 * 2**20
N_COMPARED = 5
QUIET_S = 1.0  # after so long without a packet no more will come

REFERENCES = Path(__file__).parent / "reference"


@dataclass(frozen=True)
class Received:
    """What one stream of packets cost its receiver."""

    n_packets: int
    cpu_s: float
    seconds: float
    """From the first packet sent to the last received."""
    sent: Sent

    @property
    def us_per_packet(self) -> float:
        return self.cpu_s / self.n_packets * 1e6

    @property
    def packets_per_second(self) -> float:
        return self.n_packets / self.seconds


RUN_RECEIVER = """
import logging, socket, sys
from daq_core.kernels.loading import load_kernels
from daq_core.fork_server import load_receiver
run_receiver = load_receiver()
load_kernels()
logging.disable(logging.WARNING)  # where the limit is, losses are what is looked for
{before}
run_receiver(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
"""


class OurReceiver:
    """The receiver process on a ring of ours, without a run: images are assembled and let go.

    It runs the program `before` once it has loaded everything; `descriptor` is then its third argument.
    """

    def __init__(
        self, config: DaqConfig, *, n_threads: int = 1, before: str = "", descriptor: int | None = None
    ) -> None:
        self.layout = layout_of(config)
        self._port = config.start_udp_port
        self._pixels = known_pixels(config)
        n_slots = max(8, RING_BYTES // self.layout.image_bytes)
        shape = self.layout.ring_shape(n_slots)
        ring = shape.create()
        self._channel, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), ring] + ([] if descriptor is None else [descriptor])
        try:
            self.ring = shape.attach(ring)
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN_RECEIVER.format(before=before), *map(str, descriptors)],
                pass_fds=descriptors,
            )
        finally:
            os.close(ring)
            theirs.close()
        task = ReceiverTask(config.as_dict(), "127.0.0.1", "frame", n_slots, n_threads=n_threads)
        receiver = Lines(self._channel, Vocabulary(Present, Listening, NotListening))
        receiver.tell(task)
        receiver.hear(None)
        if not isinstance(said := receiver.hear(None), Listening):
            self.__exit__()
            raise RuntimeError(said.reason if said is not None else "the receiver did not start")

    @property
    def own_bytes(self) -> int:
        """Memory of the process besides the ring, and besides what it has loaded (proc(5), RssAnon)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()
        self._process.wait()

    def receive(self, traffic: Traffic, n_images: int, rate_hz: float, shape: Shape = "plain") -> Received:
        """Take up a stream; LostError when anything is missing that was sent."""
        words = self.ring.words
        before, first_id = words.copy(), traffic.next_id
        cpu = process_cpu(self._process.pid)
        sent = traffic.send(self._port, n_images, rate_hz, shape)
        end = self._wait_for(int(before[Word.RECEIVED]) + sent.n_packets, sent.end)
        cpu = process_cpu(self._process.pid) - cpu
        self._wait_for_the_incomplete()
        counted = words - before
        n_lost = n_images * traffic.n_packets - sent.n_packets
        if counted[Word.PLACED] != sent.n_packets or counted[Word.MISSING] != n_lost:
            raise LostError(
                f"{sent.n_packets} packets were sent, {counted[Word.PLACED]} placed, "
                f"{counted[Word.MISSING]} found missing instead of {n_lost}"
            )
        self._compare(_newest(first_id, traffic))
        return Received(sent.n_packets, cpu, end - sent.start, sent)

    def _wait_for(self, n_received: int, now: float) -> float:
        """Wait for the last packet; return when it was there, or when none came any more."""
        words = self.ring.words
        last, newest = now, int(words[Word.RECEIVED])
        while newest < n_received and wall() - last < QUIET_S:
            time.sleep(0.001)
            if words[Word.RECEIVED] != newest:
                last, newest = wall(), int(words[Word.RECEIVED])
        return last

    def _wait_for_the_incomplete(self) -> None:
        """Images that lack a packet are given up after a while."""
        deadline = wall() + 5
        while self.ring.words[Word.PUBLISHED] < self.ring.words[Word.OPENED] and wall() < deadline:
            time.sleep(0.01)

    def _compare(self, image_ids: range) -> None:
        """Compare complete images in the ring with those that were sent, pixel by pixel."""
        slots = self.ring.slots
        n_bytes = self.layout.image_bytes
        complete = {int(slots["frame"][i]): i for i in np.flatnonzero(slots["state"] == COMPLETE)}
        found = [image_id for image_id in image_ids if image_id in complete]
        if not found:
            raise LostError(f"none of the images {image_ids} is complete")
        for image_id in found:
            if self.ring.pixels[complete[image_id], :n_bytes].tobytes() != self._pixels(image_id).tobytes():
                raise LostError(f"image {image_id} has other pixels than were sent")


class CReceiver:
    """One of the C programs of ``benchmarks/reference``, compiled now and started for each stream.

    It listens on a port of its own.

    Raises
    ------
    SkippedError  there is no C compiler
    """

    def __init__(self, name: str, config: DaqConfig) -> None:
        self._program = compiled(name)
        self._keeps_pixels = name != "drop"
        self._port = free_ports(1)
        here = layout_of(config).ports[0]
        self._payload_bytes = int(here.payload_bytes)
        self._n_packets = int(here.n_units)
        self._image_bytes = self._n_packets * self._payload_bytes
        self._n_slots = max(8, RING_BYTES // self._image_bytes)
        self.memory = os.memfd_create("reference")
        os.ftruncate(self.memory, self._n_slots * self._image_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.memory)

    def receive(self, traffic: Traffic, n_images: int, rate_hz: float, shape: Shape = "plain") -> Received:
        """Take up a stream; LostError when anything is missing that was sent."""
        first_id = traffic.next_id
        ring = [self.memory, self._n_slots, self._n_packets, self._payload_bytes, first_id]
        arguments = [self._port, n_images * self._n_packets] + (ring if self._keeps_pixels else [])
        with subprocess.Popen(
            [self._program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(self.memory,),
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{self._program} did not start")
            sent = traffic.send(self._port, n_images, rate_hz, shape)
            n_received, cpu, end = process.stdout.readline().split()
        if int(n_received) != sent.n_packets:
            raise LostError(f"{sent.n_packets} packets were sent, the reference received {n_received}")
        if self._keeps_pixels:
            self._compare(traffic.config, _newest(first_id, traffic))
        return Received(sent.n_packets, float(cpu), float(end) - sent.start, sent)

    def _compare(self, config: DaqConfig, image_ids: range) -> None:
        """Compare the newest images, row by row as on the wire, with what was sent."""
        packets_of = known_packets(config)
        for image_id in image_ids:
            found = os.pread(self.memory, self._image_bytes, image_id % self._n_slots * self._image_bytes)
            if found != packets_of(image_id)[:, -self._payload_bytes :].tobytes():
                raise LostError(f"the reference's image {image_id} has other pixels than were sent")


def _newest(first_id: int, traffic: Traffic) -> range:
    """Return the ids of the last images of a stream."""
    return range(max(first_id, traffic.next_id - N_COMPARED), traffic.next_id)


def known_pixels(
    config: DaqConfig, pictures: type[Simulator] = Simulator
) -> Callable[[int], npt.NDArray[Any]]:
    """Return a function that gives the pixels of an image id, rendered once a picture."""
    simulator = pictures(config)
    picture = functools.cache(simulator.image)
    return lambda image_id: picture(image_id % simulator.n_pictures)


def known_packets(config: DaqConfig) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Return a function that gives the datagrams of an image id's first port, but for the headers."""
    simulator = Simulator(config)
    return lambda image_id: simulator.packets(image_id)[0]


@functools.cache
def compiled(name: str, *libraries: str, flags: tuple[str, ...] = ()) -> str:
    """Compile a reference with the system's C compiler and return the program's path.

    ``libraries`` are found by pkg-config, and named as it names them; ``flags`` go to the compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkippedError("no C compiler `cc` is installed to build the reference with")
    program = os.path.join(_build_folder().name, name)
    source = str(REFERENCES / f"{name}.c")
    command = [compiler, "-O3", "-march=native", "-Wall", "-o", program, source, *flags]
    command += [flag for library in libraries for flag in _flags(library)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        with suppress(OSError):
            os.unlink(program)
        said = built.stderr.strip().splitlines()
        raise SkippedError(
            f"cannot be compiled: {next((line for line in said if 'error' in line), said[-1])}"
        )
    return program


def _flags(library: str) -> list[str]:
    try:
        found = subprocess.run(
            ["pkg-config", "--cflags", "--libs", library], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise SkippedError(
            f"pkg-config does not find the library {library} to build the reference with; "
            f"on Debian: apt-get install pkg-config lib{library}-dev"
        ) from None
    return found.stdout.split()


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-")
