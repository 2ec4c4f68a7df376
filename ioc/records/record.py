"""What a PV is to Channel Access: a value, an alarm and a time, and who is told of changes.

caproto's own ``ChannelData`` is not used: its alarms act on writes alone, a
failed put leaves it in alarm, an index beyond an enum's strings makes it
unreadable, and long numbers wrap. Here ``post`` shows a change to whoever monitors
a record, ``decode`` makes sense of a put or raises ValueError, and ``wire`` packs
it as any DBR type and never fails. Nothing in here waits, so what is posted in one
step is seen as one. The kinds of records are in ``ioc.records.record_kinds``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from caproto import ChannelType, SubscriptionType, native_type

from ioc.access.rules import VALUE_LEVEL
from ioc.pvs.alarms import NO_ALARM, UNDEFINED, Alarm
from ioc.pvs.row import Row
from ioc.records.dbr import (
    TIME_PADDING,
    Wire,
    element_bytes,
    numbers,
    structure,
    time_structure,
)

MAX_STATES = 16  # that a DBR_CTRL_ENUM has room for
VALUE = SubscriptionType.DBE_VALUE | SubscriptionType.DBE_LOG


class Monitor(Protocol):
    """Who is told of changes; see ``ioc.channel_access.monitors``."""

    data_type: int
    n: int  # elements asked for, 0: as many as there are
    mask: int

    def offer(self, update: Wire) -> None: ...


class Record(ABC):
    """A value with its alarm and time; the kinds below say how it looks on the wire."""

    data_type: ClassVar[ChannelType]

    def __init__(self, name: str, row: Row) -> None:
        self.name = name
        self.row = row
        self.group: str = row.access  # who may read and put it: see ioc.access.rules
        self.level = VALUE_LEVEL
        self.value: Any = None
        self.alarm = UNDEFINED
        self.time: float | None = None  # Unix seconds of the last change
        self.monitors: set[Monitor] = set()
        self.refresh: Callable[[], None] | None = None  # of a field: look at its record before a read
        self.followers: list[Record] = []  # fields that show this record's state

    @property
    def nelm(self) -> int:
        """The element count that clients are told."""
        return self.row.nelm

    @property
    def backlog(self) -> int:
        """Updates that may wait for a slow client: of long texts the newest alone is of use."""
        return 50 if self.nelm <= 1024 else 2

    def post(self, value: Any, alarm: Alarm = NO_ALARM, time: float = 0.0) -> bool:
        """Show a value; returns whether it differs from the one before. None: the value is not known."""
        value, alarm = (self.value, UNDEFINED) if value is None else (self.fit(value), alarm)
        changed = (VALUE if value != self.value else 0) | (
            SubscriptionType.DBE_ALARM if alarm != self.alarm else 0
        )
        if not changed:
            return False
        self.value, self.alarm, self.time = value, alarm, time
        self._publish(int(changed))
        for follower in self.followers:
            if follower.refresh is not None:
                follower.refresh()
        return True

    def _publish(self, changed: int) -> None:
        packed: dict[tuple[int, int], Wire] = {}
        for monitor in tuple(self.monitors):
            if monitor.mask & changed:
                kind = (monitor.data_type, monitor.n)
                if kind not in packed:
                    packed[kind] = self.wire(*kind)
                monitor.offer(packed[kind])

    def wire(self, data_type: int, n: int = 0) -> Wire:
        """Pack the value as a DBR type; `n` elements, the rest zero, or as many as there are."""
        kind = ChannelType(data_type)
        if self.refresh is not None:
            self.refresh()
        if kind is ChannelType.CLASS_NAME:
            return Wire(structure(kind, value=self.row.record.encode()), b"", 1)
        if kind is ChannelType.STSACK_STRING:
            status, severity, message = self.alarm
            return Wire(
                structure(kind, status=status, severity=severity, value=message.encode()[:39]), b"", 1
            )
        native = native_type(kind)
        size = element_bytes(native)
        data = self.elements(native)
        if n:
            data = data[: n * size].ljust(n * size, b"\0")
        return Wire(b"" if kind is native else self._metadata(kind, native), data, len(data) // size)

    def blank_wire(self, data_type: int, n: int = 0) -> Wire:
        """Return what stands where nothing may be read: zeros, as many as a value would have, or one."""
        kind, n = ChannelType(data_type), n or 1
        if kind in (ChannelType.CLASS_NAME, ChannelType.STSACK_STRING):
            return Wire(structure(kind), b"", 1)
        size = element_bytes(native_type(kind))
        return Wire(b"" if kind is native_type(kind) else structure(kind), bytes(n * size), n)

    def _metadata(self, kind: ChannelType, native: ChannelType) -> Any:
        status, severity = int(self.alarm.status), int(self.alarm.severity)
        if kind in TIME_PADDING:
            return time_structure(kind, status, severity, self.time)
        dbr = structure(kind, status=status, severity=severity)
        fields = {name for name, *_ in dbr._fields_}
        if "units" in fields:
            dbr.units = self.row.egu.encode()
        if "precision" in fields:
            dbr.precision = self.row.precision
        if "strs" in fields:
            dbr.enum_strings = [choice.encode() for choice in self.row.choices[:MAX_STATES]]
        for name, limit in self._limits().items():
            if name in fields:
                setattr(dbr, name, numbers([limit], native)[0].item())
        return dbr

    def _limits(self) -> dict[str, float]:
        """Return the limits as a C IOC gives them; one that is not set is NaN."""
        row = self.row
        return {
            "lower_disp_limit": row.display[0],
            "upper_disp_limit": row.display[1],
            "lower_ctrl_limit": row.control[0] if row.control != (0, 0) else row.display[0],
            "upper_ctrl_limit": row.control[1] if row.control != (0, 0) else row.display[1],
            "lower_alarm_limit": math.nan if row.limits.lolo is None else row.limits.lolo,
            "lower_warning_limit": math.nan if row.limits.low is None else row.limits.low,
            "upper_warning_limit": math.nan if row.limits.high is None else row.limits.high,
            "upper_alarm_limit": math.nan if row.limits.hihi is None else row.limits.hihi,
        }

    @abstractmethod
    def fit(self, value: Any) -> Any:
        """Return one of our own values as this record can hold it."""

    @abstractmethod
    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        """Return what a client put means here; ValueError says why it means nothing."""

    @abstractmethod
    def elements(self, native: ChannelType) -> bytes:
        """Pack the value's elements as one of the seven native types."""
