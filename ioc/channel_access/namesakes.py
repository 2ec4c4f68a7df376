"""Whether another IOC on the network has our PVs: asked once, by UDP, before ours are served.

Clients that find two servers of one name take the faster, each its own. A server does not notice, so
the second one asks as a client does, at the addresses where clients look. Two that start at
the same moment do not find each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable

import caproto as ca

from daq_core.linux.disk_thread import DiskThread
from daq_core.linux.network import is_loopback
from ioc.access.own_addresses import broadcast_addresses
from ioc.channel_access.environment import Address, address_of

log = logging.getLogger(__name__)

ASK_AGAIN_S = 0.15  # a datagram may get lost
PATIENCE_S = 0.4  # for an answer; the DAQ takes as long to start
RESOLVE_S = 1.0  # for a name in EPICS_CA_ADDR_LIST, beyond that
MAX_DATAGRAM = 65535
ANY_ADDRESS = "255.255.255.255"  # of a server that means: where this answer comes from


async def warn_of_namesakes(name: str, bind: str, ca_port: int) -> None:
    """Log an error for each IOC that serves a PV of this name already; never raises, never takes long."""
    found: list[str] = []
    thread = DiskThread("namesakes")  # a name server may hang as a disk may
    done = thread.submit(lambda: found.extend(ask(name, search_addresses(bind, ca_port))))
    await asyncio.wait({asyncio.wrap_future(done)}, timeout=PATIENCE_S + RESOLVE_S)
    for place in tuple(found):
        log.error(
            "another IOC, at %s, serves %s, too: each client gets the one or the other. "
            "End one of the two, or give this one another --prefix",
            place,
            name,
        )


def search_addresses(bind: str, port: int) -> list[Address]:
    """Return where clients look for the PVs of a server; one on loopback asks no other machine."""
    listed = [address_of(text, port) for text in os.environ.get("EPICS_CA_ADDR_LIST", "").split()]
    if is_loopback(bind):
        return list(dict.fromkeys([(bind, port), *(at for at in listed if is_loopback(at[0]))]))
    if os.environ.get("EPICS_CA_AUTO_ADDR_LIST", "YES").upper() != "NO":
        listed += [(address, port) for address in broadcast_addresses()]
    return list(dict.fromkeys(listed))


def ask(name: str, addresses: Iterable[Address]) -> list[str]:
    """Return who answers a search for a PV, as ``host:port``; takes PATIENCE_S, and longer for names."""
    question = bytes(ca.VersionRequest(0, ca.DEFAULT_PROTOCOL_VERSION))
    question += bytes(ca.SearchRequest(name, os.getpid(), ca.DEFAULT_PROTOCOL_VERSION))
    found: dict[str, None] = {}
    addresses = tuple(addresses)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for patience_s in (ASK_AGAIN_S, PATIENCE_S - ASK_AGAIN_S):
            for address in addresses:
                try:
                    sock.sendto(question, address)
                except OSError as error:  # no such name, no route: clients do not find it there either
                    log.debug("search at %s: %s", address, error)
            found.update(dict.fromkeys(_heard(sock, time.monotonic() + patience_s)))
    return list(found)


def _heard(sock: socket.socket, until: float) -> Iterable[str]:
    """Yield who answers until then; anything may arrive by UDP."""
    parser = ca.Broadcaster(our_role=ca.CLIENT)
    while (patience_s := until - time.monotonic()) > 0:
        sock.settimeout(patience_s)
        try:
            datagram, (host, port) = sock.recvfrom(MAX_DATAGRAM)
            answers = [answer for answer in parser.recv(datagram, (host, port)) if _is_ours(answer)]
        except TimeoutError:
            return
        except OSError:  # nobody listens at one of the addresses, says ICMP
            continue
        except Exception as broken:
            log.debug("no answer to a search: %s", broken)
            continue
        for answer in answers:
            yield f"{host if answer.ip == ANY_ADDRESS else answer.ip}:{answer.port}"


def _is_ours(answer: object) -> bool:
    return isinstance(answer, ca.SearchResponse) and answer.cid == os.getpid()
