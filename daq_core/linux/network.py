"""Addresses of the network: whether one is of this machine alone, and lists of those that are trusted."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_loopback(host: str) -> bool:
    """Tell whether nobody outside this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_networks(text: str) -> tuple[Network, ...]:
    """Make networks of a list like ``10.10.1.5,10.10.2.0/24``; "" is none.

    Raises
    ------
    ValueError
        One is neither an address nor a network, or has bits behind its prefix.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_in(host: str, networks: Sequence[Network]) -> bool:
    """Tell whether an address is in one of some networks; an IPv4 address may be written as IPv6 has it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
