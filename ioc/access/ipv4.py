"""Addresses that options name: of IPv4, which Channel Access and the detectors' packets come by."""

from __future__ import annotations

import ipaddress

import typer


def listening(value: str) -> str:
    """Take the address that REST, Redis and Channel Access listen on."""
    return _ipv4(value, "Channel Access knows IPv4 alone")


def receiving(value: str) -> str:
    """Take the address that packets arrive at: one of this machine."""
    if _is_multicast(value):
        raise typer.BadParameter(
            f"{value} is a multicast group, which is not joined: have the detector send to an address of "
            "this machine, and name that, or 0.0.0.0 for all."
        )
    return _ipv4(value, "detectors' packets are received by IPv4 alone")


def sending(value: str) -> str:
    """Take the address that packets are sent to."""
    return _ipv4(value, "packets are sent by IPv4 alone")


def _ipv4(value: str, why: str) -> str:
    try:
        is_ipv6 = ipaddress.ip_address(value.strip("[]")).version == 6
    except ValueError:
        is_ipv6 = ":" in value  # 10.1.2.3:5000 is none either
        if is_ipv6 and value.count(":") == 1:
            raise typer.BadParameter(f"{value} has a port, which is an option of its own.") from None
    if is_ipv6:
        raise typer.BadParameter(f"{value} is an IPv6 address: {why}. Give an IPv4 address.")
    return value


def _is_multicast(value: str) -> bool:
    try:
        return ipaddress.ip_address(value.strip("[]")).is_multicast
    except ValueError:
        return False
