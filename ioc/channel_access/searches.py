"""Searches by UDP: a client asks everybody who has a PV."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import caproto as ca

from ioc.channel_access.shared import Shared

log = logging.getLogger(__name__)


class Searches(asyncio.DatagramProtocol):
    """Answers who looks for one of our PVs; stays silent otherwise, as others may have it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parser = ca.Broadcaster(our_role=ca.SERVER)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        try:
            requests = self._parser.recv(data, address)
            found = [
                ca.SearchResponse(self._shared.port, None, request.cid, ca.DEFAULT_PROTOCOL_VERSION)
                for request in requests
                if isinstance(request, ca.SearchRequest) and self._shared.names.find(request.name) is not None
            ]
        except Exception as broken:  # anything may arrive by UDP
            self._shared.counts.n_broken += 1
            log.debug("not a CA search from %s: %s", address, broken)
            return
        if found:
            answer = b"".join(map(bytes, (ca.VersionResponse(ca.DEFAULT_PROTOCOL_VERSION), *found)))
            self._transport.sendto(answer, address)
