"""Finding free ports on loopback, for the demo and the tests.

A port is free when it was just bound and released; somebody else may take it
in between, which is rare enough here since ports are picked at random below
the range the kernel hands out by itself, and none twice by one process. The
dice are the system's: hypothesis seeds Python's own, alike in every process.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections import deque

LOOPBACK = "127.0.0.1"
_DICE = random.SystemRandom()
_FIRST, _LAST = 20_000, 32_000  # Linux gives out 32768 and up: net.ipv4.ip_local_port_range

_given: deque[int] = deque(maxlen=(_LAST - _FIRST) // 2)  # so that a long-lived process finds ports, too


def free_ports(n: int = 1, *kinds: socket.SocketKind) -> int:
    """Return the first of n consecutive ports that are free for all of the kinds (default: TCP)."""
    for _ in range(1000):
        first = _DICE.randrange(_FIRST, _LAST - n)
        if not set(_given).isdisjoint(range(first, first + n)):
            continue
        with contextlib.ExitStack() as bound:
            try:
                for port in range(first, first + n):
                    for kind in kinds or (socket.SOCK_STREAM,):
                        bound.enter_context(socket.socket(socket.AF_INET, kind)).bind((LOOPBACK, port))
            except OSError:
                continue
            _given.extend(range(first, first + n))
            return first
    raise OSError(f"no {n} consecutive free ports between {_FIRST} and {_LAST}")


def channel_access_environment(ca_port: int) -> dict[str, str]:
    """Return the environment that keeps a Channel Access client or server on loopback and this port."""
    repeater, beacons = free_ports(2, socket.SOCK_DGRAM, socket.SOCK_STREAM), str(ca_port + 1)
    return {
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(ca_port),
        "EPICS_CA_REPEATER_PORT": str(repeater),
        "EPICS_CAS_SERVER_PORT": str(ca_port),
        "EPICS_CAS_BEACON_PORT": beacons,
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
    }
