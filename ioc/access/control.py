"""The access rules in force: read at the start, read again on IOC:READACF, never lost to a bad file."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from ioc.access.file import AccessFile, read_access_file
from ioc.access.rules import ACCESS_GROUPS, THIS_MACHINE_ONLY, AccessRules

log = logging.getLogger(__name__)


class AccessControl:
    """Usage: ``access = AccessControl(file)``, then ``access.rules``; no file: THIS_MACHINE_ONLY.

    Raises
    ------
    InvalidConfig
        The file cannot be read, or is wrong.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._reading = asyncio.Lock()  # one READACF after the other: the last one asked for is in force
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self.rules = _read(file)

    def on_change(self, listener: Callable[[], Awaitable[None]]) -> None:
        """Call a listener whenever other rules are in force."""
        self._listeners.append(listener)

    async def reload(self) -> None:
        """Read the file again, its host names too; returns when the rules hold for all clients.

        Raises
        ------
        InvalidConfig
            The file cannot be read, or is wrong; the rules are as before.
        """
        async with self._reading:
            self.rules = await asyncio.to_thread(_read, self._file)  # a name server may take its time
            for listener in self._listeners:
                await listener()


def _read(file: Path | None) -> AccessRules:
    if file is None:
        return THIS_MACHINE_ONLY
    found = read_access_file(file)
    for group in ACCESS_GROUPS:
        if group not in found.groups:
            log.info("%s: there is no ASG(%s), its PVs have the rules of DEFAULT.", file, group)
    return found.rules(_addresses(found, file))


def _addresses(found: AccessFile, file: Path) -> dict[str, frozenset[str]]:
    """Look up each host once; one that is not known is nobody, as in a C IOC."""
    addresses: dict[str, frozenset[str]] = {}
    for host in (host for hosts in found.hosts.values() for host in hosts):
        if host.name not in addresses:
            addresses[host.name] = _addresses_of(host.name)
            if not addresses[host.name]:
                log.warning(
                    "%s, line %d: host %a is not known: it may do nothing that needs its HAG. "
                    "Put IOC:READACF when it is.",
                    file,
                    host.line,
                    host.name,
                )
    return addresses


def _addresses_of(host: str) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for what cannot be a name
        return frozenset()
    return frozenset(str(address[0]) for *_, address in found)
