"""Many clients, and one that is stopped: the others get their updates, and the server grows no fatter.

Server and clients are real and in processes of their own; what is judged are counts, never times.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.ca_clients import Clients
from benchmarks.ca_servers import CountingServer
from benchmarks.memory import resident_mb
from ioc.pvs.daq import PVS
from tests.processes.service import Service

N_PVS, RATE_HZ = 300, 15.0
GONE_WITHIN_S = 15.0
N_CLIENTS = 20


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer(f"T{secrets.token_hex(4)}:", N_PVS, RATE_HZ) as server:
        yield server


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not {what} after {seconds:.0f} s"
        time.sleep(0.05)


@pytest.mark.night  # by day: test_a_client_that_stops_reading_is_disconnected_and_counted
@pytest.mark.timeout(180)
def test_a_stopped_client_is_gone_soon_and_costs_the_others_nothing(server: CountingServer) -> None:
    with ExitStack() as entered:
        sleeper, *others = (entered.enter_context(Clients(server.ca_port, server.names)) for _ in range(4))
        wait_until(lambda: all(c.counts()[0] > 20 * N_PVS for c in others), "all follow")
        memory = resident_mb(server.pid)
        before, had = server.pause(), [settled(c) for c in others]
        os.kill(sleeper.pid, signal.SIGSTOP)
        server.resume()
        wait_until(lambda: server.report().n_stalled == 1, "the stopped client disconnected")
        gone = server.report()
        wait_until(lambda: server.report().n_posted > gone.n_posted + 30, "two seconds more")
        after = server.pause()

        # counted in updates, not seconds: a machine that is busy is slower in all of them
        assert gone.n_posted - before.n_posted < GONE_WITHIN_S * RATE_HZ
        assert after.n_clients == len(others)
        n_posted = N_PVS * (after.n_posted - before.n_posted)
        assert n_posted > 30 * N_PVS
        for client, then in zip(others, had, strict=True):
            assert settled(client) - then >= 0.95 * n_posted
        assert resident_mb(server.pid) - memory < 15

        had_slept = sleeper_counts(sleeper)
        server.resume()  # it comes back by itself
        wait_until(lambda: sleeper.counts()[0] > had_slept + 2 * N_PVS, "the stopped client follows again")
        assert server.report().n_clients == len(others) + 1


def settled(client: Clients) -> int:
    """Return the updates of a client once no more are on their way."""
    count, since = client.counts()[0], time.monotonic()
    while time.monotonic() < since + 0.5:
        time.sleep(0.05)
        if client.counts()[0] != count:
            count, since = client.counts()[0], time.monotonic()
    return count


def sleeper_counts(sleeper: Clients) -> int:
    """Let it go on, and return what it has had when it has read what its socket kept."""
    os.kill(sleeper.pid, signal.SIGCONT)
    return settled(sleeper)


@pytest.mark.timeout(180)
def test_twenty_clients_get_a_value_of_every_pv_again_and_again(service: Service) -> None:
    names = [row.pv(service.prefix) for row in PVS]

    def follow() -> float:
        with Clients(service.ca_port, names, N_CLIENTS) as clients:
            first = clients.counts()
            assert min(first) >= len(PVS)
            service.simulator().send(5, rate_hz=50)  # rates, counters and the newest image change
            wait_until(
                lambda: all(now > then + 20 for now, then in zip(clients.counts(), first, strict=True)),
                "all clients see what changes",
            )
            return resident_mb(service.pid)

    held = [follow() for _ in range(3)]
    assert max(held) < 200
    assert held[-1] - held[0] < 15
