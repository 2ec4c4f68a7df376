"""Channel Access with 1, 20 and 50 clients, against a C soft IOC that serves the same PVs.

The clients are the C library's: one whose updates are timed, the others a crowd in a process of
its own. Both servers run at the same time and are measured in turn.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import detectors
from benchmarks.ca_clients import Clients
from benchmarks.ca_crowd import Crowd
from benchmarks.ca_servers import CIoc, CountingServer, counting_database, names
from benchmarks.cpu import process_cpu, wall
from benchmarks.figure import Effort, Figure, LostError, percentile
from benchmarks.memory import resident_mb
from benchmarks.service import CaClient, Service
from ioc.pvs.daq import PVS

PREFIX = "BENCH:"
N_PVS, RATE_HZ = 100, 10.0  # the fastest that a C IOC scans
CROWDS = (1, 20, 50)
MANY = 20
MOST_ROUNDS = 3  # a crowd takes a while to connect
C_IOC = "C soft IOC"
TEMPLATE = Path(__file__).parents[1] / "db/daq.template"
FEWEST_UPDATES = 0.9  # of those expected; below it, the machine cannot do what is measured


@dataclass(frozen=True)
class Watched:
    """What a server did for its clients, and how late the timed client was told."""

    latencies: list[float]
    cpu_s: float
    n_updates: int

    @property
    def cpu_per_update_us(self) -> float:
        return 1e6 * self.cpu_s / self.n_updates


def monitors(effort: Effort) -> list[Figure]:
    """100 PVs, 10 times a second each, to every client."""
    pvs = names(PREFIX, N_PVS)
    figures: list[Figure] = []
    with (
        CountingServer(PREFIX, N_PVS, RATE_HZ) as ours,
        CIoc(counting_database(N_PVS), PREFIX) as theirs,
    ):
        for n_clients in CROWDS if effort.rounds > 1 else CROWDS[:2]:
            rounds = []
            for _ in range(min(effort.rounds, MOST_ROUNDS)):
                rounds.append(
                    (
                        _watch(ours.ca_port, ours.pid, pvs, n_clients, effort),
                        _watch(theirs.ca_port, theirs.pid, pvs, n_clients, effort),
                    )
                )
            figures += _figures(n_clients, rounds)
        if ours.report().n_dropped:
            raise LostError(f"{ours.report().n_dropped} updates were dropped for slow clients")
    return figures


def _watch(ca_port: int, pid: int, pvs: list[str], n_clients: int, effort: Effort) -> Watched:
    with ExitStack() as entered:
        timed = entered.enter_context(Clients(ca_port, pvs))
        crowd = entered.enter_context(Crowd(ca_port, pvs, n_clients - 1)) if n_clients > 1 else None

        def count() -> int:
            return sum(timed.counts()) + (crowd.n_updates() if crowd is not None else 0)

        time.sleep(2 / RATE_HZ)  # the first values are over
        timed.latencies()
        before, cpu, begin = count(), process_cpu(pid), wall()
        time.sleep(max(3 / RATE_HZ, 2 * effort.seconds))
        n_updates, cpu_s, seconds = count() - before, process_cpu(pid) - cpu, wall() - begin
        expected = n_clients * N_PVS * RATE_HZ * seconds
        if seconds > 1 and n_updates < FEWEST_UPDATES * expected:
            raise LostError(f"{n_updates} updates came where {expected:.0f} were posted")
        return Watched(timed.latencies(), cpu_s, n_updates)


def _figures(n_clients: int, rounds: list[tuple[Watched, Watched]]) -> list[Figure]:
    who = f"{n_clients} clients" if n_clients > 1 else "1 client"
    note = f"{N_PVS} PVs at {RATE_HZ:.0f} Hz"

    late_ms = [1e3 * seconds for ours, _ in rounds for seconds in ours.latencies]

    def late(percent: float) -> list[tuple[float, float]]:
        return [
            (1e3 * percentile(ours.latencies, percent), 1e3 * percentile(theirs.latencies, percent))
            for ours, theirs in rounds
        ]

    return [
        Figure.of_times(f"event to monitor, {who}", late_ms, goal="p99 ≤ 150 ms", note=note),
        Figure.ratio(f"event to monitor, p50, {who}", C_IOC, late(50), unit="ms", note=note),
        Figure.ratio(f"event to monitor, p99, {who}", C_IOC, late(99), unit="ms", note=note),
        Figure.ratio(
            f"server's CPU for an update, {who}",
            C_IOC,
            [(ours.cpu_per_update_us, theirs.cpu_per_update_us) for ours, theirs in rounds],
            unit="µs",
            note=note,
        ),
    ]


def all_pvs(effort: Effort) -> list[Figure]:
    """Twenty clients that monitor every PV of the service: first values, memory, Stop."""
    first: list[tuple[float, float]] = []
    held: list[tuple[float, float]] = []
    stops: list[float] = []
    with Service(detectors.jungfrau()) as service, CIoc(TEMPLATE.read_text(), service.prefix) as theirs:
        pvs = [row.pv(service.prefix) for row in PVS]
        for number in range(min(effort.rounds, MOST_ROUNDS)):
            with Crowd(theirs.ca_port, pvs, MANY) as crowd:
                reference, reference_mb = crowd.first_values_s, resident_mb(theirs.pid)
            with Crowd(service.ca_port, pvs, MANY) as crowd:
                first.append((crowd.first_values_s, reference))
                held.append((resident_mb(service.pid), reference_mb))
                stops.append(_stop(service, number))
    who, note = f"all PVs, {MANY} clients", f"{len(PVS)} PVs"
    return [
        Figure.ratio(f"first values of {who}", C_IOC, first, unit="s", note=note),
        Figure(f"time to first values of {who}", "", tuple(s for s, _ in first), "≤ 6 s", note, "s"),
        Figure.ratio(f"memory with {who}", C_IOC, held, unit="MB", note=note),
        Figure(f"memory of the service with {who}", "", tuple(mb for mb, _ in held), "≤ 200 MB", note, "MB"),
        Figure.of_times(f"Stop of a run, {who}", stops, goal="p50 ≤ 200 ms"),
    ]


def _stop(service: Service, number: int) -> float:
    """Return the milliseconds until a Stop completes, of a run that waits for images."""
    with CaClient(service) as client:
        client.put_text("DAQ:OutputFile", str(service.folder / f"run{number}.h5"))
        client.put("DAQ:WriteAsync", [1])
        begin = wall()
        client.put("DAQ:Stop", [1])
        return 1e3 * (wall() - begin)


def puts(effort: Effort) -> list[Figure]:
    """A setpoint's put with completion, as caput -c does it, one after the other."""
    n_puts = max(20, effort.n_runs * 2)
    taken: list[float] = []  # by ours
    pairs = []
    with Service(detectors.jungfrau()) as service, CIoc(TEMPLATE.read_text(), service.prefix) as theirs:
        name = service.prefix + "DAQ:NImages"
        with Clients(service.ca_port, [name]) as ours, Clients(theirs.ca_port, [name]) as reference:

            def put(client: Clients) -> list[float]:
                return [1e3 * seconds for n in range(n_puts) for seconds in client.put(name, n + 1)]

            put(ours)  # everything is warm then
            for _ in range(effort.rounds):
                by_ours, by_theirs = put(ours), put(reference)
                taken += by_ours
                pairs.append((percentile(by_ours, 50), percentile(by_theirs, 50)))
    return [
        Figure.of_times("a setpoint's put with completion", taken, goal="p50 ≤ 2 ms"),
        Figure.ratio("a setpoint's put with completion, p50", C_IOC, pairs, unit="ms"),
    ]


BENCHMARKS = (monitors, all_pvs, puts)
