"""What the EPICS environment says of Channel Access: the port of a server, and its beacons.

caproto would read these names from the environment itself, some of them wrongly
(it ignores ``EPICS_CAS_SERVER_PORT``); here they are read once, and given on as values.
"""

from __future__ import annotations

import logging
import os

from daq_core.linux.network import is_loopback

log = logging.getLogger(__name__)

CA_PORT, BEACON_PORT = 5064, 5065
Address = tuple[str, int]


def ca_port() -> int:
    """Return the port that clients are told to use: EPICS_CAS_SERVER_PORT, EPICS_CA_SERVER_PORT, or 5064."""
    for name in ("EPICS_CAS_SERVER_PORT", "EPICS_CA_SERVER_PORT"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return CA_PORT


def beacon_addresses(bind: str) -> list[Address]:
    """Return who is told that the server is there; a server on loopback never tells another machine."""
    port = os.environ.get("EPICS_CAS_BEACON_PORT", "")
    default_port = int(port) if port.isdecimal() else BEACON_PORT
    if is_loopback(bind):
        return [(bind, default_port)]
    listed = os.environ.get("EPICS_CAS_BEACON_ADDR_LIST", "").split()
    if os.environ.get("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "YES").upper() != "NO":
        listed.append("255.255.255.255")
    return [address_of(text, default_port) for text in dict.fromkeys(listed) if not _is_ipv6(text)]


def _is_ipv6(text: str) -> bool:
    """Tell whether a beacon address is one that Channel Access does not know, and say so."""
    if text.count(":") < 2:
        return False
    log.warning(
        "EPICS_CAS_BEACON_ADDR_LIST: %s is an IPv6 address, and Channel Access knows IPv4 alone", text
    )
    return True


def address_of(text: str, default_port: int) -> Address:
    """Read ``host`` or ``host:port``."""
    host, _, port = text.partition(":")
    return host, int(port) if port.isdecimal() else default_port
