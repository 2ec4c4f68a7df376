"""The channels of one client: what it may do with each, and which reads and puts are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import caproto as ca

from ioc.access.control import AccessControl
from ioc.access.rules import Rights
from ioc.commands.client import Client
from ioc.commands.commands import Put
from ioc.records.record import Record

READABLE = frozenset(ca.ChannelType) - {ca.ChannelType.PUT_ACKT, ca.ChannelType.PUT_ACKS}


class Refused(Exception):
    """A request that this server does not grant, with the CA status that says so."""

    def __init__(self, status: ca.CAStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Denied(Refused):
    """A request that the access rules do not let this client make."""


@dataclass
class Channel:
    """A record as one client sees it; `rights` follow the access rules."""

    cid: int  # the client's number for it
    record: Record
    rights: Rights

    @property
    def access(self) -> Any:
        """What the client is told that it may do."""
        read = ca.AccessRights.READ if self.rights.read else 0
        write = ca.AccessRights.WRITE if self.rights.write and self.record.row.put is not None else 0
        return ca.AccessRightsResponse(cid=self.cid, access_rights=read | write)

    def check_type(self, command: Any) -> None:
        """Refuse to read as a type that is none, or more elements than there are."""
        if command.data_type not in READABLE:
            raise Refused(
                ca.CAStatus.ECA_BADTYPE, f"{self.record.name} cannot be read as type {command.data_type}."
            )
        if command.data_count > max(self.record.nelm, 40):
            raise Refused(ca.CAStatus.ECA_BADCOUNT, f"{self.record.name} has {self.record.nelm} elements.")

    def put(self) -> Put:
        """Return what a put does, or refuse it."""
        if not self.rights.write:
            raise Denied(ca.CAStatus.ECA_NOWTACCESS, f"{self.record.name}: the access rules do not allow it.")
        if self.record.row.put is None:
            raise Refused(ca.CAStatus.ECA_NOWTACCESS, f"{self.record.name} is read only.")
        return self.record.row.put

    def decoded(self, command: Any) -> Any:
        """Return what a put's elements mean for the record, or refuse them."""
        record = self.record
        if command.data_type not in ca.native_types:
            raise Refused(
                ca.CAStatus.ECA_BADTYPE, f"{record.name} cannot be put as type {command.data_type}."
            )
        try:
            return record.decode(command.data_type, command.data[: command.data_count])
        except (ValueError, OverflowError) as reason:
            raise Refused(ca.CAStatus.ECA_PUTFAIL, str(reason)) from None
        except Exception as broken:  # the payload is not what its header announces
            raise Refused(ca.CAStatus.ECA_PUTFAIL, f"{record.name}: unreadable value: {broken}") from None


class Channels:
    """The channels that a client has, by the server's number for each (sid)."""

    def __init__(self, access: AccessControl, address: str) -> None:
        self.client = Client("", "", address)
        self._access = access
        self._by_sid: dict[int, Channel] = {}
        self._next_sid = 1
        self._rights: dict[tuple[str, int], Rights] = {}  # of this client, by group and level: there are few

    def claim(self, **names: Any) -> None:
        """Take a client's word for its user or host name, before its first channel, as a C IOC does."""
        if not self._by_sid:
            self.client = replace(self.client, **names)
            self._rights = {}

    def open(self, cid: int, record: Record) -> tuple[int, Channel]:
        """Make a channel; return its sid, too."""
        sid, self._next_sid = self._next_sid, self._next_sid + 1
        channel = self._by_sid[sid] = Channel(cid, record, self._rights_to(record))
        return sid, channel

    def close(self, sid: int) -> None:
        self._by_sid.pop(sid, None)

    def __getitem__(self, sid: int) -> Channel:
        return self._by_sid[sid]

    def __contains__(self, sid: int) -> bool:
        return sid in self._by_sid

    def __len__(self) -> int:
        return len(self._by_sid)

    def follow_rules(self) -> dict[int, Rights]:
        """Give every channel what the rules allow now; return what those had before that moved."""
        self._rights, moved = {}, {}
        for sid, channel in self._by_sid.items():
            before, channel.rights = channel.rights, self._rights_to(channel.record)
            if before[:2] != channel.rights[:2]:
                moved[sid] = before
        return moved

    def _rights_to(self, record: Record) -> Rights:
        key, client = (record.group, record.level), self.client
        if key not in self._rights:
            self._rights[key] = self._access.rules.rights(*key, client.user, client.address)
        return self._rights[key]
