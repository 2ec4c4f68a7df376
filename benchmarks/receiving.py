"""CPU time per packet of the receiver process, against C receivers of the same stream."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import detectors
from benchmarks.figure import Effort, Figure, LostError
from benchmarks.receivers import CReceiver, OurReceiver, Received
from benchmarks.traffic import Shape, Traffic
from daq_core.config import DaqConfig

PACED = 50_000  # packets a second: 390 Jungfrau modules
MAX_TRIES = 6

Pair = tuple[Received, Received]


def into_one_contiguous_module(effort: Effort) -> list[Figure]:
    """A Jungfrau module that is the whole image."""
    config = detectors.jungfrau()
    pairs = against_c(config, "scatter", effort)
    return [cpu_figure("Jungfrau module, contiguous", "C recvmmsg, scattered into place", pairs, "≤ 1.10")]


def into_gapped_and_flipped_images(effort: Effort) -> list[Figure]:
    """Modules whose rows are apart, upside down, mirrored; the reference's image is contiguous."""
    reference = "C recvmmsg, scattered into a contiguous image"
    cases = (
        (
            "Jungfrau module, upside down in a wider image",
            detectors.jungfrau(offset=8, flipped=True),
            "≤ 1.45",
        ),
        ("Eiger half module, chip gap, upside down", detectors.eiger(flip_x=False), "≤ 1.45"),
        ("Eiger half module, chip gap, turned by 180°", detectors.eiger(flip_x=True), ""),
    )
    return [
        cpu_figure(name, reference, against_c(config, "scatter", effort), goal)
        for name, config, goal in cases
    ]


def paced_at_50_kpps(effort: Effort) -> list[Figure]:
    """A moderate stream, packet by packet, where it matters most how a receiver waits."""
    rate = min(PACED, effort.packets_per_second)
    pairs = against_c(detectors.jungfrau(), "blocking", effort, rate, "even")
    return [cpu_figure("Jungfrau module, packets one by one", "C blocking recvmmsg", pairs, "≤ 0.80")]


def with_loss_and_reordering(effort: Effort) -> list[Figure]:
    """A packet in a thousand does not arrive, and as many come in the wrong order."""
    config = detectors.jungfrau()
    with Traffic(config) as traffic, OurReceiver(config) as ours:

        def measure(rate: float) -> Pair:
            n_images, rate_hz = _stream(traffic, rate, effort)
            return (
                ours.receive(traffic, n_images, rate_hz, "lossy"),
                ours.receive(traffic, n_images, rate_hz),
            )

        pairs = rounds(measure, effort.rounds, effort.packets_per_second)
    return [cpu_figure("0.1 % of the packets lost and swapped", "without", pairs, "≤ 1.05")]


def of_four_ports(effort: Effort) -> list[Figure]:
    """The same packets as four modules and as one."""
    four, one = detectors.jungfrau(4), detectors.jungfrau(1)
    with (
        Traffic(four) as traffic_4,
        OurReceiver(four) as receiver_4,
        Traffic(one) as traffic_1,
        OurReceiver(one) as receiver_1,
    ):

        def measure(rate: float) -> Pair:
            return (
                receiver_4.receive(traffic_4, *_stream(traffic_4, rate, effort)),
                receiver_1.receive(traffic_1, *_stream(traffic_1, rate, effort)),
            )

        pairs = rounds(measure, effort.rounds, effort.packets_per_second)
    return [cpu_figure("4 ports", "1 port, as many packets", pairs, "≤ 1.15")]


def of_two_threads(effort: Effort) -> list[Figure]:
    """Four modules received by two threads and by one: what the gate between them costs."""
    config = detectors.jungfrau(4)
    of_one = config.merge({"start_udp_port": detectors.free_ports(4)})
    with (
        Traffic(config) as traffic,
        OurReceiver(config, n_threads=2) as two,
        Traffic(of_one) as traffic_of_one,
        OurReceiver(of_one) as one,
    ):

        def measure(rate: float) -> Pair:
            return (
                two.receive(traffic, *_stream(traffic, rate, effort)),
                one.receive(traffic_of_one, *_stream(traffic_of_one, rate, effort)),
            )

        pairs = rounds(measure, effort.rounds, effort.packets_per_second)
    return [cpu_figure("4 ports, 2 threads", "1 thread", pairs, "")]


def against_c(
    config: DaqConfig,
    reference: str,
    effort: Effort,
    packets_per_second: float | None = None,
    shape: Shape = "plain",
) -> list[Pair]:
    """Measure our receiver and a C receiver in turn, on the same stream."""
    with (
        CReceiver(reference, config) as c_receiver,
        OurReceiver(config) as ours,
        Traffic(config) as traffic,
    ):

        def measure(rate: float) -> Pair:
            stream = _stream(traffic, rate, effort)
            return (
                ours.receive(traffic, *stream, shape),
                c_receiver.receive(traffic, *stream, shape),
            )

        return rounds(measure, effort.rounds, packets_per_second or effort.packets_per_second)


def rounds(measure: Callable[[float], Pair], n_rounds: int, rate: float) -> list[Pair]:
    """Measure pairs at a rate that both bear; it is lowered when packets were lost.

    The first pair warms everything up and is not counted, unless it is the only one.
    """
    pairs: list[Pair] = []
    n_tries = 0
    n_warm = 1 if n_rounds > 1 else 0
    while len(pairs) < n_warm + n_rounds:
        try:
            pairs.append(measure(rate))
        except LostError:
            n_tries += 1
            if n_tries == MAX_TRIES:
                raise
            rate *= 0.7
    return pairs[n_warm:]


def _stream(traffic: Traffic, packets_per_second: float, effort: Effort) -> tuple[int, float]:
    """Return number and rate of images."""
    rate_hz = packets_per_second / traffic.n_packets
    return max(2, round(rate_hz * effort.seconds)), rate_hz


def cpu_figure(name: str, reference: str, pairs: list[Pair], goal: str) -> Figure:
    rates = [one.packets_per_second for pair in pairs for one in pair]
    return Figure.ratio(
        name,
        reference,
        [(ours.us_per_packet, theirs.us_per_packet) for ours, theirs in pairs],
        goal=goal,
        unit="µs/packet",
        note=f"{min(rates) / 1000:.0f} to {max(rates) / 1000:.0f} kpps",
    )


BENCHMARKS = (
    into_one_contiguous_module,
    into_gapped_and_flipped_images,
    paced_at_50_kpps,
    with_loss_and_reordering,
    of_four_ports,
    of_two_threads,
)
