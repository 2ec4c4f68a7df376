"""One Channel Access client: its TCP connection, its channels, and what it monitors.

``channel_access.messages`` parses; the traffic is handled here, so that one client can never hurt another:

- Updates wait in queues of their own that never make anybody wait; see ``ioc.channel_access.monitors``.
- Every send is bounded in time: a client that stops reading is disconnected
  after ``SEND_TIMEOUT_S`` and counted.
- Whatever else goes wrong with what a client sends ends this client alone.
- A put runs as a task of its own, so one that waits for the end of a run does
  not delay anything, and a client that vanishes does not cancel it.
- What a client may do is settled when it makes a channel, and again when the access
  rules change: it is told, and its monitors end or begin to show something.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

import caproto as ca

from ioc.channel_access.channels import Channel, Channels, Denied, Refused
from ioc.channel_access.messages import (
    NO_READ_ACCESS,
    OK,
    READ,
    READ_NOTIFY,
    Garbage,
    Requests,
    packed,
    value_message,
)
from ioc.channel_access.monitors import Monitor, Updates
from ioc.channel_access.printable import printable
from ioc.channel_access.puts import Puts
from ioc.channel_access.shared import Shared
from ioc.commands.client import Client

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 6.0
STALLED_S = 1.0  # a client that has taken nothing for so long is shown as stalled
SEND_BUFFER_BYTES = 64 * 1024  # small, so that a client that stops reading is noticed soon
MAX_CHANNELS = 10_000  # of a client: every PV and many fields; one more is not found
MAX_MONITORS = 10_000  # of a client; one more is refused
READ_BYTES = 16 * 1024
VERSION = ca.DEFAULT_PROTOCOL_VERSION


class Circuit:
    """Serves one connection until it ends: ``await Circuit(reader, writer, shared).serve()``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shared: Shared) -> None:
        self._reader, self.writer, self._shared = reader, writer, shared
        peer = writer.get_extra_info("peername")
        self._requests = Requests()
        self.channels = Channels(shared.commands.access, peer[0])
        self._monitors: dict[int, Monitor] = {}  # by subscription id
        self._updates = Updates()
        self._puts = Puts(shared.commands, shared.report)
        self._sending = asyncio.Lock()
        self._waiting_since: float | None = None  # monotonic time; for the client to take what is sent
        self._closed = False
        _bound_buffers(writer)

    async def serve(self) -> None:
        """Answer requests until the client leaves, breaks the protocol, or stops reading."""
        sender = asyncio.create_task(self._send_updates())
        try:
            while not self._closed and (data := await self._reader.read(READ_BYTES)):
                for command in self._requests.feed(data):
                    await self._answer(command)
        except OSError:
            pass  # it is gone, which is no news
        except Garbage as broken:
            self._shared.counts.n_broken += 1
            log.info("CA client %s sent what is not Channel Access: %s", self._name, broken)
        except Exception as fault:
            self._shared.report("CA circuit", fault)
        finally:
            self.close()
            sender.cancel()

    def close(self) -> None:
        """Forget the client. Nothing more is sent: what it did not read so far is dropped."""
        self._closed = True
        for monitor in tuple(self._monitors.values()):
            self._forget(monitor)
        self.writer.transport.abort()

    @property
    def client(self) -> Client:
        return self.channels.client

    @property
    def is_stalled(self) -> bool:
        """Whether the client has stopped reading, and not been disconnected for it yet."""
        since = self._waiting_since
        return not self._closed and since is not None and time.monotonic() - since >= STALLED_S

    @property
    def _name(self) -> str:
        return f"{self.client} ({self.client.address})"

    # -- requests ----------------------------------------------------------------------------

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
            self._shared.spawn(self._put(self._channel(command), command))
            await asyncio.sleep(0)  # a setpoint is there before the next request is looked at

    def _response(self, command: Any) -> list[Any]:
        match command:
            case ca.VersionRequest():
                return [ca.VersionResponse(VERSION)]
            case ca.HostNameRequest():
                self.channels.claim(host=_claimed(command))
            case ca.ClientNameRequest():
                self.channels.claim(user=_claimed(command))
            case ca.EchoRequest():
                return [ca.EchoResponse()]
            case ca.SearchRequest():
                if self._shared.names.find(command.name) is not None:
                    return [ca.SearchResponse(self._shared.port, None, command.cid, VERSION)]
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
                return self._cancel_monitor(command)
            case ca.EventsOffRequest():
                self._updates.pause()
            case ca.EventsOnRequest():
                self._updates.resume()
        return []

    def _create_channel(self, command: ca.CreateChanRequest) -> list[Any]:
        record = self._shared.names.find(command.name)
        if record is None or len(self.channels) >= MAX_CHANNELS:
            return [ca.CreateChFailResponse(cid=command.cid)]
        data_type, n = record.data_type, record.nelm
        if command.name.endswith("$") and data_type is ca.ChannelType.STRING:
            data_type, n = ca.ChannelType.CHAR, 40
        sid, channel = self.channels.open(command.cid, record)
        return [
            channel.access,
            ca.CreateChanResponse(data_type=data_type, data_count=n, cid=command.cid, sid=sid),
        ]

    def _clear_channel(self, command: ca.ClearChannelRequest) -> list[Any]:
        self._channel(command)
        for monitor in [m for m in self._monitors.values() if m.sid == command.sid]:
            self._forget(monitor)
        self.channels.close(command.sid)
        return [ca.ClearChannelResponse(command.sid, command.cid)]

    def _channel(self, command: Any) -> Channel:
        if command.sid not in self.channels:
            raise Garbage(f"a request to channel {command.sid}, which is not there")
        return self.channels[command.sid]

    def follow_rules(self) -> None:
        """Tell the client what it may do since the access rules changed, where it differs."""
        moved = self.channels.follow_rules()
        if moved:
            self._shared.spawn(self._tell_rights(list(moved)))  # begins before what the monitors send
        for monitor in self._monitors.values():
            readable = self.channels[monitor.sid].rights.read
            if monitor.sid in moved and moved[monitor.sid].read != readable:
                monitor.allow(readable)

    async def _tell_rights(self, sids: list[int]) -> None:
        await self._send(*(self.channels[sid].access for sid in sids if sid in self.channels))

    def _read(self, command: Any) -> bytes:
        channel = self._channel(command)
        channel.check_type(command)
        record, status = channel.record, OK
        if channel.rights.read:
            value = record.wire(command.data_type, command.data_count)
        elif isinstance(command, ca.ReadRequest):
            raise Denied(ca.CAStatus.ECA_NORDACCESS, f"{record.name}: the access rules do not allow it.")
        else:  # the answer itself has the status, and zeros
            value, status = record.blank_wire(command.data_type, command.data_count), NO_READ_ACCESS
        kind = READ_NOTIFY if isinstance(command, ca.ReadNotifyRequest) else READ
        return value_message(kind, command.data_type, value, status, command.ioid)

    # -- puts --------------------------------------------------------------------------------

    async def _put(self, channel: Channel, command: Any) -> None:
        """Carry out a put and answer it when it is complete; a failed one is answered with the reason."""
        try:
            await self._puts.carry_out(channel, command, self.client)
        except Refused as refused:
            response = self._error(command, refused.status, str(refused))
        else:
            response = self._done(command)
        if response:
            await self._send_late(command, *response)

    def _done(self, command: Any) -> list[Any]:
        if not isinstance(command, ca.WriteNotifyRequest):
            return []
        return [ca.WriteNotifyResponse(command.data_type, command.data_count, OK, command.ioid)]

    def _error(self, command: Any, status: ca.CAStatus, reason: str) -> list[Any]:
        if command.sid not in self.channels:
            return []
        cid = self.channels[command.sid].cid
        return [ca.ErrorResponse(command, cid, status, reason.encode()[:500] + b"\0")]

    async def _send_late(self, command: Any, *response: Any) -> None:
        """Answer a put that took its time: its channel or its client may be gone by now."""
        if command.sid in self.channels:
            await self._send(*response)

    # -- monitors ----------------------------------------------------------------------------

    def _add_monitor(self, command: ca.EventAddRequest) -> None:
        channel = self._channel(command)
        channel.check_type(command)
        if command.subscriptionid in self._monitors:
            self._forget(self._monitors[command.subscriptionid])
        if len(self._monitors) >= MAX_MONITORS:
            raise Refused(ca.CAStatus.ECA_ALLOCMEM, f"This client has {MAX_MONITORS} monitors already.")
        monitor = Monitor(channel.record, command, self._updates)
        self._monitors[monitor.id] = monitor
        channel.record.monitors.add(monitor)
        monitor.allow(channel.rights.read)

    def _cancel_monitor(self, command: ca.EventCancelRequest) -> list[Any]:
        monitor = self._monitors.get(command.subscriptionid)
        if monitor is None:
            return []
        self._forget(monitor)
        return [ca.EventCancelResponse(command.data_type, command.sid, command.subscriptionid, monitor.n)]

    def _forget(self, monitor: Monitor) -> None:
        monitor.end()
        self._monitors.pop(monitor.id, None)

    async def _send_updates(self) -> None:
        try:
            while not self._closed:
                await self._updates.ready()
                n_dropped, batch = self._updates.take()
                self._shared.counts.n_dropped += n_dropped
                self._shared.counts.n_updates += len(batch)
                await self._send(*batch)
        except Exception as fault:
            self._shared.report("CA updates", fault)
            self.close()

    # -- the wire ----------------------------------------------------------------------------

    async def _send(self, *responses: Any) -> None:
        """Send, and end the circuit when the client does not take it in time."""
        if self._closed or not responses:
            return
        data = b"".join(map(packed, responses))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S), self._sending:
                self._waiting_since = time.monotonic()
                self.writer.write(data)
                await self.writer.drain()
                self._waiting_since = None
        except TimeoutError:
            if not self._closed:
                self._shared.counts.n_stalled += 1
                log.warning("CA client %s stopped reading and is disconnected.", self._name)
            self.close()
        except OSError:
            self.close()


def _claimed(request: Any) -> str:
    """Return the name that a client gives itself or its host."""
    return printable(bytes(request.buffers[1]).split(b"\0")[0].decode("utf-8", "replace"))


def _bound_buffers(writer: asyncio.StreamWriter) -> None:
    """Keep buffers small, send at once, and let the kernel notice clients whose machine is gone."""
    writer.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    # asyncio does it for sockets that were made with a protocol number, which these were not
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
