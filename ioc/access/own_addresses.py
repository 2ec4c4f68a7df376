"""The IPv4 addresses of this machine, as the kernel has them now."""

from __future__ import annotations

import socket
from typing import Any

import psutil


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of all interfaces, second ones too."""
    return tuple(entry.address for entry in _entries())


def broadcast_addresses() -> tuple[str, ...]:
    """Return the broadcast addresses of all interfaces; loopback and lines between two machines have none."""
    return tuple(dict.fromkeys(entry.broadcast for entry in _entries() if entry.broadcast))


def _entries() -> list[Any]:
    cards = psutil.net_if_addrs().values()
    return [entry for entries in cards for entry in entries if entry.family is socket.AF_INET]
