"""The sockets of Channel Access: searches and beacons by UDP, circuits by TCP.

Both are bound to one port and never to another: caproto's own server would take
any free TCP port when its own is in use, and share the UDP port, which makes
one of two servers unreachable without a word.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping

import caproto as ca

from daq_core.control.tasks import Tasks
from daq_core.errors import Unavailable
from ioc.channel_access.circuits import Circuit
from ioc.channel_access.environment import beacon_addresses
from ioc.channel_access.names import Names
from ioc.channel_access.searches import Searches
from ioc.channel_access.shared import Counts, Shared
from ioc.commands.commands import Commands
from ioc.records.record import Record

log = logging.getLogger(__name__)

MAX_CLIENTS = 500
BEACON_PERIOD_S = 15.0
FIRST_BEACON_S = 0.02


class Server:
    """Serves records to clients while it is entered: ``async with Server(records, commands, …): …``.

    Raises
    ------
    Unavailable
        The port is taken, or the address is not one of this machine.
    """

    def __init__(
        self,
        records: Mapping[str, Record],
        commands: Commands,
        *,
        bind: str,
        port: int,
        report: Callable[[str, BaseException], None],
    ) -> None:
        self.bind, self.port = bind, port
        self.circuits: set[Circuit] = set()
        self._tasks = Tasks()  # work that outlives the client who asked for it
        self._shared = Shared(Names(records), port, commands, report, self._tasks.spawn)
        commands.access.on_change(self._follow_rules)

    async def _follow_rules(self) -> None:
        for circuit in tuple(self.circuits):
            circuit.follow_rules()
            await asyncio.sleep(0)  # some hundred monitors may begin anew for each

    @property
    def counts(self) -> Counts:
        return self._shared.counts

    @property
    def n_channels(self) -> int:
        return sum(len(circuit.channels) for circuit in self.circuits)

    @property
    def n_stalled_now(self) -> int:
        """Clients that have stopped reading and are still connected."""
        return sum(circuit.is_stalled for circuit in self.circuits)

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        tcp = _listening(self.bind, self.port)
        try:
            udp = _bound(socket.SOCK_DGRAM, self.bind, self.port)
        except BaseException:
            tcp.close()
            raise
        self._tcp = await asyncio.start_server(self._serve, sock=tcp)
        self._udp, _ = await loop.create_datagram_endpoint(lambda: Searches(self._shared), sock=udp)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._tcp.close()
        self._udp.close()
        for circuit in tuple(self.circuits):
            circuit.close()
        await self._tasks.end()

    async def beacons(self) -> None:
        """Tell clients that the server is there: quickly at first, then every 15 s. Never returns."""
        addresses = beacon_addresses(self.bind)
        host = self._tcp.sockets[0].getsockname()[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setblocking(False)
            period, n = FIRST_BEACON_S, 0
            while True:
                beacon = bytes(ca.Beacon(ca.DEFAULT_PROTOCOL_VERSION, self.port, n, host))
                for address in addresses:
                    try:
                        sock.sendto(beacon, address)
                    except OSError as error:
                        log.debug("beacon to %s: %s", address, error)
                await asyncio.sleep(period)
                period, n = min(2 * period, BEACON_PERIOD_S), n + 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.circuits) >= MAX_CLIENTS:
            log.warning("More than %d CA clients: one more is turned away.", MAX_CLIENTS)
            writer.transport.abort()
            return
        circuit = Circuit(reader, writer, self._shared)
        self.circuits.add(circuit)
        try:
            await circuit.serve()
        except Exception as fault:
            self._shared.report("CA circuit", fault)
        finally:
            self.circuits.discard(circuit)


def _bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM:
        # a port whose connections have ended is free; one that somebody listens on is not
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _unavailable(host, port, error) from None
    return sock


def _listening(host: str, port: int) -> socket.socket:
    sock = _bound(socket.SOCK_STREAM, host, port)
    try:
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise _unavailable(host, port, error) from None
    return sock


def _unavailable(host: str, port: int, error: OSError) -> Unavailable:
    return Unavailable(
        f"Channel Access port {port} on {host} cannot be used: {error.strerror}. "
        "End the other IOC there, or choose another with --ca-port and EPICS_CA_SERVER_PORT of the clients."
    )
