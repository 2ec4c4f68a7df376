"""One Channel Access client: its TCP connection, its channels, and what it monitors.

caproto parses and checks the protocol; the traffic is handled here, so that one
client can never hurt another:

- Updates wait in queues of their own that never make anybody wait; see ``ioc.monitors``.
- Every send is bounded in time: a client that stops reading is disconnected
  after ``SEND_TIMEOUT_S`` and counted.
- Whatever else goes wrong with what a client sends ends this client alone.
- A put runs as a task of its own, so one that waits for the end of a run does
  not delay anything, and a client that vanishes does not cancel it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import caproto as ca

from daq_core.errors import DaqError
from ioc.commands import Client
from ioc.monitors import Monitor, Updates
from ioc.records import Record
from ioc.rows import Put

if TYPE_CHECKING:
    from ioc.channel_access import Server

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 6.0
SEND_BUFFER_BYTES = 64 * 1024  # small, so that a client that stops reading is noticed soon
MAX_REQUEST_BYTES = 1024 * 1024  # the largest PV takes 64 kB; a header may announce 4 GB
READ_BYTES = 16 * 1024
VERSION = ca.DEFAULT_PROTOCOL_VERSION
READABLE = frozenset(ca.ChannelType) - {ca.ChannelType.PUT_ACKT, ca.ChannelType.PUT_ACKS}


class Refused(Exception):
    """A request that this server does not grant, with the CA status that says so."""

    def __init__(self, status: ca.CAStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Garbage(Exception):
    """What a client sent is not Channel Access."""


class Circuit:
    """Serves one connection until it ends: ``await Circuit(reader, writer, server).serve()``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        self._reader, self._writer, self._server = reader, writer, server
        peer = writer.get_extra_info("peername")
        self._protocol = ca.VirtualCircuit(ca.SERVER, peer, None)
        self._protocol.our_address = writer.get_extra_info("sockname")
        self.client = Client("", "", peer[0])
        self.records: dict[int, Record] = {}  # by sid
        self._monitors: dict[int, Monitor] = {}  # by subscription id
        self._updates = Updates()
        self._sending = asyncio.Lock()
        self._closed = False
        _bound_buffers(writer)

    async def serve(self) -> None:
        """Answer requests until the client leaves, breaks the protocol, or stops reading."""
        sender = asyncio.create_task(self._send_updates())
        try:
            while not self._closed and (data := await self._reader.read(READ_BYTES)):
                for command in self._parsed(data):
                    await self._answer(command)
        except OSError:
            pass  # it is gone, which is no news
        except Garbage as broken:
            self._server.n_broken += 1
            log.info("CA client %s sent what is not Channel Access: %s", self._name, broken)
        except Exception as fault:
            self._server.report("CA circuit", fault)
        finally:
            self.close()
            sender.cancel()

    def close(self) -> None:
        """Forget the client. Nothing more is sent: what it did not read so far is dropped."""
        self._closed = True
        for monitor in tuple(self._monitors.values()):
            self._forget(monitor)
        self._writer.transport.abort()

    @property
    def _name(self) -> str:
        return f"{self.client} ({self.client.address})"

    # -- requests ----------------------------------------------------------------------------

    def _parsed(self, data: bytes) -> Iterator[Any]:
        """Return the requests that are complete; garbage surfaces as nearly any error of the parser."""
        try:
            commands, n_missing = self._protocol.recv(data)
            for command in commands:
                self._protocol.process_command(command)
                yield command
        except Exception as broken:
            raise Garbage(f"{type(broken).__name__}: {broken}") from None
        if n_missing > MAX_REQUEST_BYTES:
            raise Garbage(f"a request of {n_missing} bytes")

    async def _answer(self, command: Any) -> None:
        try:
            response = self._response(command)
        except Refused as refused:
            response = self._error(command, refused.status, str(refused))
        except ValueError as broken:  # no DBR type has that number
            raise Garbage(str(broken)) from None
        if response:
            await self._send(*response)
        if isinstance(command, (ca.WriteRequest, ca.WriteNotifyRequest)):
            self._server.spawn(self._put(command))
            await asyncio.sleep(0)  # a setpoint is there before the next request is looked at

    def _response(self, command: Any) -> list[Any]:
        match command:
            case ca.VersionRequest():
                return [ca.VersionResponse(VERSION)]
            case ca.HostNameRequest():
                self.client = replace(self.client, host=printable(command.name))
            case ca.ClientNameRequest():
                self.client = replace(self.client, user=printable(command.name))
            case ca.EchoRequest():
                return [ca.EchoResponse()]
            case ca.SearchRequest():
                if self._server.find(command.name) is not None:
                    return [ca.SearchResponse(self._server.port, None, command.cid, VERSION)]
                if command.reply == ca.DO_REPLY:
                    return [ca.NotFoundResponse(version=VERSION, cid=command.cid)]
            case ca.CreateChanRequest():
                return self._create_channel(command)
            case ca.ClearChannelRequest():
                return self._clear_channel(command)
            case ca.ReadNotifyRequest() | ca.ReadRequest():
                return [self._read(command)]
            case ca.EventAddRequest():
                self._add_monitor(command)
            case ca.EventCancelRequest():
                return [self._cancel_monitor(command)]
            case ca.EventsOffRequest():
                self._updates.pause()
            case ca.EventsOnRequest():
                self._updates.resume()
        return []

    def _create_channel(self, command: ca.CreateChanRequest) -> list[Any]:
        record = self._server.find(command.name)
        if record is None:
            return [ca.CreateChFailResponse(cid=command.cid)]
        data_type, n = record.data_type, record.nelm
        if command.name.endswith("$") and data_type is ca.ChannelType.STRING:
            data_type, n = ca.ChannelType.CHAR, 40
        rights = ca.AccessRights.READ | (ca.AccessRights.WRITE if record.row.put else 0)
        sid = self._protocol.new_channel_id()
        self.records[sid] = record
        return [
            ca.AccessRightsResponse(cid=command.cid, access_rights=rights),
            ca.CreateChanResponse(data_type=data_type, data_count=n, cid=command.cid, sid=sid),
        ]

    def _clear_channel(self, command: ca.ClearChannelRequest) -> list[Any]:
        for monitor in [m for m in self._monitors.values() if m.sid == command.sid]:
            self._forget(monitor)
        self.records.pop(command.sid, None)
        return [ca.ClearChannelResponse(command.sid, command.cid)]

    def _read(self, command: Any) -> Any:
        record = self.records[command.sid]
        self._check_readable(record, command)
        value = record.wire(command.data_type, command.data_count)
        kind = ca.ReadNotifyResponse if isinstance(command, ca.ReadNotifyRequest) else ca.ReadResponse
        ok = ca.CAStatus.ECA_NORMAL.value.code_with_severity
        return kind(value.data, command.data_type, value.n, ok, command.ioid, metadata=value.metadata)

    def _check_readable(self, record: Record, command: Any) -> None:
        if command.data_type not in READABLE:
            raise Refused(
                ca.CAStatus.ECA_BADTYPE, f"{record.name} cannot be read as type {command.data_type}."
            )
        if command.data_count > max(record.nelm, 40):
            raise Refused(ca.CAStatus.ECA_BADCOUNT, f"{record.name} has {record.nelm} elements.")

    # -- puts --------------------------------------------------------------------------------

    async def _put(self, command: Any) -> None:
        """Carry out a put and answer it when it is complete; a failed one is answered with the reason."""
        record = self.records[command.sid]
        commands = self._server.commands
        try:
            put, value = self._decoded(record, command)
            log.info("%s puts %s = %.200r", self._name, record.name, value)
            await put(commands, value, self.client)
        except Refused as refused:
            commands.reject(record.row.name, str(refused), self.client)
            response = self._error(command, refused.status, str(refused))
        except (DaqError, TimeoutError) as reason:  # shown by the command itself
            log.info("%s: put of %s refused: %s", self._name, record.name, reason)
            response = self._error(command, ca.CAStatus.ECA_PUTFAIL, str(reason) or "timed out")
        except Exception as fault:
            self._server.report(f"put of {record.name}", fault)
            response = self._error(command, ca.CAStatus.ECA_PUTFAIL, f"internal error: {fault}")
        else:
            response = self._done(command)
        if response:
            await self._send_late(command, *response)

    def _decoded(self, record: Record, command: Any) -> tuple[Put, Any]:
        if record.row.put is None:
            raise Refused(ca.CAStatus.ECA_NOWTACCESS, f"{record.name} is read only.")
        if command.data_type not in ca.native_types:
            raise Refused(
                ca.CAStatus.ECA_BADTYPE, f"{record.name} cannot be put as type {command.data_type}."
            )
        try:
            return record.row.put, record.decode(command.data_type, command.data[: command.data_count])
        except (ValueError, OverflowError) as reason:
            raise Refused(ca.CAStatus.ECA_PUTFAIL, str(reason)) from None
        except Exception as broken:  # the payload is not what its header announces
            raise Refused(ca.CAStatus.ECA_PUTFAIL, f"{record.name}: unreadable value: {broken}") from None

    def _done(self, command: Any) -> list[Any]:
        if not isinstance(command, ca.WriteNotifyRequest):
            return []
        ok = ca.CAStatus.ECA_NORMAL.value.code_with_severity
        return [ca.WriteNotifyResponse(command.data_type, command.data_count, ok, command.ioid)]

    def _error(self, command: Any, status: ca.CAStatus, reason: str) -> list[Any]:
        channel = self._protocol.channels_sid.get(command.sid)
        if channel is None:
            return []
        # caproto forgets an ioid when it is answered, but an error does not count for it
        self._protocol._ioids.pop(getattr(command, "ioid", None), None)
        return [ca.ErrorResponse(command, channel.cid, status, reason.encode()[:500] + b"\0")]

    async def _send_late(self, command: Any, *response: Any) -> None:
        """Answer a put that took its time: its channel or its client may be gone by now."""
        if command.sid in self.records:
            await self._send(*response)

    # -- monitors ----------------------------------------------------------------------------

    def _add_monitor(self, command: ca.EventAddRequest) -> None:
        record = self.records[command.sid]
        self._check_readable(record, command)
        if command.subscriptionid in self._monitors:
            self._forget(self._monitors[command.subscriptionid])
        monitor = Monitor(record, command, self._updates)
        self._monitors[monitor.id] = monitor
        record.monitors.add(monitor)
        monitor.offer(record.wire(monitor.data_type, monitor.n))

    def _cancel_monitor(self, command: ca.EventCancelRequest) -> Any:
        monitor = self._monitors.get(command.subscriptionid)
        if monitor is not None:
            self._forget(monitor)
        n = monitor.n if monitor is not None else 0
        return ca.EventCancelResponse(command.data_type, command.sid, command.subscriptionid, n)

    def _forget(self, monitor: Monitor) -> None:
        monitor.end()
        self._monitors.pop(monitor.id, None)

    async def _send_updates(self) -> None:
        try:
            while not self._closed:
                await self._updates.ready()
                n_dropped, batch = self._updates.take()
                self._server.n_dropped += n_dropped
                self._server.n_updates += len(batch)
                await self._send(*batch)
        except Exception as fault:
            self._server.report("CA updates", fault)
            self.close()

    # -- the wire ----------------------------------------------------------------------------

    async def _send(self, *commands: Any) -> None:
        """Send, and end the circuit when the client does not take it in time."""
        if self._closed or not commands:
            return
        data = b"".join(self._protocol.send(*commands))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S), self._sending:
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            if not self._closed:
                self._server.n_stalled += 1
                log.warning("CA client %s stopped reading and is disconnected.", self._name)
            self.close()
        except OSError:
            self.close()


def printable(name: str) -> str:
    """Return what a client calls itself, fit for a log line."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])


def _bound_buffers(writer: asyncio.StreamWriter) -> None:
    """Keep buffers small, and let the kernel notice clients whose machine is gone."""
    writer.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
