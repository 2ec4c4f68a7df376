"""Packets for the receivers under test, sent by a process of its own.

It sends the pictures of ``daq_core.simulating.simulator``, but hands the kernel several
datagrams in one message (UDP_SEGMENT), which halves the sender's cost; receivers
see ordinary datagrams. Both ends of the process are here: :class:`Traffic` for
the benchmark, :func:`main` for the process. One JSON object a line::

    {"n_images": …, "rate_hz": …, "first_id": …, "shape": "plain", "port": …}
    {"n_packets": …, "start": …, …}
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from benchmarks.cpu import process_cpu, wall
from daq_core.config import DaqConfig
from daq_core.detectors import format_of
from daq_core.kernels.compiling import kernel, now_ns, sendmmsg
from daq_core.linux.sockets import MESSAGE_BYTES
from daq_core.simulating.sender import Burst, Sender
from daq_core.simulating.simulator import Simulator

SEGMENTED_BYTES = 65_000  # UDP_SEGMENT takes less than 64 KiB
SOL_UDP, UDP_SEGMENT = 17, 103
BRIGHTEST_PHOTONS = 1.0  # a pixel and image, on average; images compress to a tenth then

Shape = Literal["plain", "lossy", "even"]
"""plain: packets in small bursts, all of them, in order;
lossy: a packet in a thousand is left out, and as many change places with their neighbour;
even: one by one at equal distances, as a long wire delivers them."""


@dataclass(frozen=True)
class Sent:
    """What went out; times are on the monotonic clock."""

    n_packets: int
    start: float
    end: float
    cpu_s: float


class Photons(Simulator):
    """Pictures of single photons on the same rings: most pixels are 0, as where images compress well."""

    def image(self, image_id: int) -> npt.NDArray[Any]:
        random = np.random.default_rng([image_id % self.n_pictures])
        mean = self._mean * (BRIGHTEST_PHOTONS / self._mean.max())
        return random.poisson(mean).astype(self.layout.ring_dtype)


class Traffic:
    """The sender process of one detector, ready to send at once::

    with Traffic(config) as traffic:
        sent = traffic.send(config.start_udp_port, n_images=1000, rate_hz=500)

    ``photons``: send :class:`Photons`.
    """

    def __init__(self, config: DaqConfig, *, photons: bool = False) -> None:
        self.config = config
        self.pictures = Photons if photons else Simulator
        self.next_id = 1
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.traffic", config.as_json(), self.pictures.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.n_packets: int = json.loads(self._answer())["n_packets"]  # of an image

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate()

    def send(self, port: int, n_images: int, rate_hz: float, shape: Shape = "plain") -> Sent:
        """Send the next images to the ports from this one on; rate 0 is as fast as possible."""
        assert self._process.stdin is not None
        order = {
            "n_images": n_images,
            "rate_hz": rate_hz,
            "first_id": self.next_id,
            "shape": shape,
            "port": port,
        }
        self.next_id += n_images
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return Sent(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the sender process ended; its messages above say why")
        return line


Picture = tuple[list[npt.NDArray[np.uint8]], Burst]
"""The datagrams of each port, and the messages that send them."""


class PictureSender:
    """Sends a cycle of pictures that are rendered and packed once."""

    def __init__(self, config: DaqConfig, pictures: type[Simulator]) -> None:
        simulator = pictures(config)
        self._stamp = format_of(config).stamp
        pictures = [simulator.packets(image_id) for image_id in range(simulator.n_pictures)]
        self.n_packets = sum(map(len, pictures[0]))
        self._datagram_bytes: int = pictures[0][0].shape[1]
        self._n_ports = len(simulator.ports)
        self._senders: dict[int, Sender] = {}
        with Sender("127.0.0.1", simulator.ports) as sender:
            n_segments = self._segment(sender)
        self._cycles: dict[Shape, list[Picture]] = {
            "plain": [(picture, _segmented(picture, n_segments)) for picture in pictures],
            "lossy": [(picture, _segmented(picture, n_segments)) for picture in _spoil(pictures)],
            "even": [(picture, Burst.of_packets(picture)) for picture in pictures],
        }

    def _segment(self, sender: Sender) -> int:
        """Ask the kernel to cut messages into datagrams; returns how many datagrams a message has."""
        try:
            for one in sender.sockets:
                one.setsockopt(SOL_UDP, UDP_SEGMENT, self._datagram_bytes)
        except OSError:  # a kernel before 4.18
            return 1
        return SEGMENTED_BYTES // self._datagram_bytes

    def _sender_to(self, port: int) -> Sender:
        if port not in self._senders:
            self._senders[port] = Sender("127.0.0.1", list(range(port, port + self._n_ports)))
            self._segment(self._senders[port])
        return self._senders[port]

    def send(self, n_images: int, rate_hz: float, first_id: int, shape: Shape, port: int) -> Sent:
        cycle = self._cycles[shape]
        sender = self._sender_to(port)
        n_packets = 0

        def bursts() -> Iterator[Burst]:
            nonlocal n_packets
            for image_id in range(first_id, first_id + n_images):
                packets, burst = cycle[image_id % len(cycle)]
                for datagrams in packets:
                    self._stamp(datagrams, image_id)
                    n_packets += len(datagrams)
                yield burst

        start, cpu = wall(), process_cpu()
        if shape == "even":
            self._drip(sender, bursts(), rate_hz)
        else:
            sender.send(bursts(), rate_hz)
        return Sent(n_packets, start, wall(), process_cpu() - cpu)

    def _drip(self, sender: Sender, bursts: Iterator[Burst], rate_hz: float) -> None:
        """Send packets one by one, at equal distances over all images."""
        timespec = np.zeros(2, np.int64)
        step_ns = 1e9 / (rate_hz * self.n_packets)
        due = float(now_ns(1, timespec))
        for burst in bursts:
            drip(sender.sockets[0].fileno(), burst.messages, due, step_ns, timespec)
            due += step_ns * len(burst.messages)


@kernel
def drip(descriptor: int, messages: Any, due: float, step_ns: float, timespec: Any) -> None:
    """Send each of (n, 16) uint32 messages at its time, on a clock that is watched without sleeping."""
    for i in range(messages.shape[0]):
        while now_ns(1, timespec) < due + i * step_ns:
            pass
        sendmmsg(np.int32(descriptor), messages.ctypes.data + i * MESSAGE_BYTES, np.uint32(1), np.int32(0))


def _spoil(pictures: list[list[npt.NDArray[np.uint8]]]) -> list[list[npt.NDArray[np.uint8]]]:
    """Swap two packets of the first port, and leave one out of the whole cycle: 0.1 % of a Jungfrau's."""
    spoilt = [[packets.copy() for packets in picture] for picture in pictures]
    for picture in spoilt[::2]:
        picture[0][[0, 1]] = picture[0][[1, 0]]
    spoilt[1][0] = np.delete(spoilt[1][0], len(spoilt[1][0]) // 2, axis=0)
    return spoilt


def _segmented(picture: list[npt.NDArray[np.uint8]], n_segments: int) -> Burst:
    """Make messages of up to n datagrams that follow each other in memory."""
    addresses, lengths = [], []
    for packets in picture:
        first = np.arange(0, len(packets), n_segments, dtype=np.uint64)
        n_bytes = np.uint64(packets.shape[1])
        addresses.append(np.uint64(packets.ctypes.data) + first * n_bytes)
        lengths.append(np.minimum(np.uint64(n_segments), np.uint64(len(packets)) - first) * n_bytes)
    return Burst(addresses, lengths, picture)


def main() -> int:
    """Run as the sender process; the arguments are the config and the name of the pictures."""
    pictures = Photons if sys.argv[2] == Photons.__name__ else Simulator
    sender = PictureSender(DaqConfig.parse(json.loads(sys.argv[1])), pictures)
    print(json.dumps({"n_packets": sender.n_packets}), flush=True)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        print(json.dumps(asdict(sender.send(**order))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
