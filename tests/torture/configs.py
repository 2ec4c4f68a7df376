"""Configs that cannot run, and a state directory without room: no round is worse for them."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ioc.program.ports import LOOPBACK, free_ports
from tests.torture.detector import N_PORTS
from tests.torture.session import BACK_S, Session

Situation = Callable[[Session, random.Random], None]


@contextmanager
def held(port: int) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((LOOPBACK, port))
        yield


def post(session: Session, **changes: Any) -> tuple[bool, str]:
    answer = session.service.post("/daq/config", changes)
    return answer["status"] == "ok", str(answer["message"])


def refuse_held_port(session: Session, dice: random.Random) -> None:
    """A port that another program has is refused, with its process; nothing changes."""
    before = session.service.get("/daq/config")
    port = free_ports(N_PORTS, socket.SOCK_DGRAM)
    n_ports = session.service.config.n_modules
    with held(port + dice.randrange(n_ports)):
        accepted, message = post(session, start_udp_port=port)
    assert not accepted, "a config whose UDP port is held was accepted"
    assert f"(process {os.getpid()})" in message, message
    assert session.service.get("/daq/config") == before


def refuse_huge_ring(session: Session, dice: random.Random) -> None:
    before = session.service.get("/daq/config")
    accepted, message = post(session, ram_buffer_gb=dice.choice((4000, 1000)))
    assert not accepted, "a ring larger than the memory was accepted"
    assert "ram_buffer_gb" in message, message
    assert session.service.get("/daq/config") == before


def lose_port(session: Session, dice: random.Random) -> None:
    """Another program takes the port after it was found free: one of the two configs runs, nothing else."""
    service = session.service
    former, port = service.config.start_udp_port, free_ports(N_PORTS, socket.SOCK_DGRAM)
    accepted, message = post(session, start_udp_port=port)
    assert accepted, message
    try:
        with held(port):
            service.wait_for("READY", seconds=BACK_S)
    except OSError:  # our receiver was faster
        service.wait_for("READY", seconds=BACK_S)
    else:
        deployment = service.get("/daq/deployment")["deployment"]
        assert deployment["status"] == "ERROR", deployment
        assert service.get("/daq/config")["config"]["start_udp_port"] == former
    accepted, message = post(session, start_udp_port=former)
    assert accepted, message
    service.wait_for("READY", seconds=BACK_S)


def fill_state_disk(session: Session, dice: random.Random) -> None:
    """A config set while the state disk is full is told, and known after the service was killed."""
    service = session.service
    state = session.folder / "state"
    full, period = state / "config.new", dice.randrange(1, 10**6)
    post(session, stats_collection_period=period + 1)
    _wait_until_saved(session, period + 1)  # what was set before it, too: the file is not being written
    full.symlink_to("/dev/full")
    accepted, message = post(session, stats_collection_period=period)
    assert accepted, message
    assert "is not kept for the next start" in message, message
    full.unlink()
    if dice.random() < 0.5:  # with the next change; else it is tried again by itself
        post(session, max_number_of_forwarders_spawned=dice.randrange(1, 100))
    _wait_until_saved(session, period)
    service.end(dice.choice((signal.SIGKILL, signal.SIGTERM)))
    session.restart()
    known = service.get("/daq/config")["config"]["stats_collection_period"]
    assert known == period, f"a config was forgotten: {known} instead of {period}"


def _wait_until_saved(session: Session, period: int) -> None:
    path, deadline = session.folder / "state" / "config.json", time.monotonic() + BACK_S
    while not path.exists() or f'"stats_collection_period": {period}' not in path.read_text():
        assert time.monotonic() < deadline, "the config was not saved when there was room"
        time.sleep(0.05)


SITUATIONS: dict[str, Situation] = {
    "config with a port that is held": refuse_held_port,
    "config with too large a ring": refuse_huge_ring,
    "config that loses its port": lose_port,
    "state disk full": fill_state_disk,
}
