"""How the receiver's cost grows with modules, image size and rate; and detectors at both ends."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass

from benchmarks import detectors
from benchmarks.figure import Effort, Figure
from benchmarks.limits import search
from benchmarks.receivers import OurReceiver, Received
from benchmarks.receiving import Pair, cpu_figure, rounds
from benchmarks.traffic import Traffic
from daq_core.config import DaqConfig

MOST_ROUNDS = 3
ORIGINAL_HZ = 40_000  # of GigaFRoST images of 480 × 128, as its authors published
ONE = "a Jungfrau module, as many packets"


def of_modules_and_image_sizes(effort: Effort) -> list[Figure]:
    """CPU time of a packet, against images of one module (128 packets, 1 MiB) at the same packet rate."""
    cases = (
        ("2 modules, images of 2 MiB", detectors.jungfrau(2)),
        ("8 modules, images of 8 MiB", detectors.jungfrau(8)),
        ("8 rows of a module, images of 16 KiB", detectors.jungfrau(height=8)),
    )
    one = detectors.jungfrau()
    with Traffic(one) as traffic, OurReceiver(one) as receiver:
        return [
            cpu_figure(name, ONE, _against((receiver, traffic), config, effort), "") for name, config in cases
        ]


def _against(reference: tuple[OurReceiver, Traffic], config: DaqConfig, effort: Effort) -> list[Pair]:
    with Traffic(config) as traffic, OurReceiver(config) as receiver:

        def measure(rate: float) -> Pair:
            return _receive(receiver, traffic, rate, effort), _receive(*reference, rate, effort)

        return rounds(measure, min(effort.rounds, MOST_ROUNDS), effort.packets_per_second / 2)


def of_rates(effort: Effort) -> list[Figure]:
    """CPU time of a packet at a tenth of a rate, against the rate."""
    config = detectors.jungfrau()
    with Traffic(config) as traffic, OurReceiver(config) as receiver:

        def measure(rate: float) -> Pair:
            return _receive(receiver, traffic, rate / 10, effort), _receive(receiver, traffic, rate, effort)

        pairs = rounds(measure, min(effort.rounds, MOST_ROUNDS), effort.packets_per_second)
    return [cpu_figure("a tenth of the packets a second", "all of them", pairs, "")]


def _receive(receiver: OurReceiver, traffic: Traffic, packets_per_second: float, effort: Effort) -> Received:
    rate_hz = packets_per_second / traffic.n_packets
    return receiver.receive(traffic, max(2, round(rate_hz * effort.seconds)), rate_hz)


@dataclass(frozen=True)
class Extreme:
    """A detector at an end of the scale, and the rate to compare with: what, and images a second."""

    name: str
    config: DaqConfig
    mark: str = ""
    mark_hz: float = 1.0


def small_and_large_images(effort: Effort) -> list[Figure]:
    """The highest lossless rates without a file."""
    extremes = (
        Extreme(
            "GigaFRoST 480 × 128, no file",
            detectors.gigafrost(480, 128),
            "the original's published 40 kHz",
            ORIGINAL_HZ,
        ),
        Extreme("GigaFRoST 2016 × 2016, no file", detectors.gigafrost(2016, 2016)),
        Extreme("Eiger of 9 megapixels, 72 ports, no file", detectors.eiger_9m()),
    )
    return [_highest_rate(extreme, effort) for extreme in extremes]


def _highest_rate(extreme: Extreme, effort: Effort) -> Figure:
    rates: list[float] = []
    cpu_s: list[float] = []  # of the receiver, for an image
    with Traffic(extreme.config) as traffic, OurReceiver(extreme.config) as receiver:
        image_bytes = receiver.layout.image_bytes

        async def trial(n_images: int, rate_hz: float) -> Received:
            return await asyncio.to_thread(receiver.receive, traffic, n_images, rate_hz)

        for _ in range(min(effort.rounds, MOST_ROUNDS)):
            packets_per_second, reached = asyncio.run(search(trial, traffic.n_packets, effort))
            rates.append(packets_per_second / traffic.n_packets)
            cpu_s.append(reached.cpu_s / reached.n_packets * traffic.n_packets)
        memory = receiver.own_bytes
    hz = statistics.median(rates)
    return Figure(
        extreme.name,
        extreme.mark,
        tuple(rate / extreme.mark_hz for rate in rates),
        unit="" if extreme.mark else "images/s",
        note=f"{hz:.0f} images/s, {hz * image_bytes / 1e9:.2f} GB/s of {image_bytes / 2**20:.2f} MiB images; "
        f"{1 / statistics.median(cpu_s):.0f} images/s would fill a core of the receiver, which "
        f"has {memory / 2**20:.0f} MiB besides the ring",
    )


BENCHMARKS = (of_modules_and_image_sizes, of_rates, small_and_large_images)
