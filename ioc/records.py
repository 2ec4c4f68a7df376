"""The values Channel Access serves: one small record class for each kind of PV.

caproto's own ``ChannelData`` is not used: its alarms act on writes alone, a
failed put leaves it in alarm, an index beyond an enum's strings makes it
unreadable, and long numbers wrap. Here a record is a value, an alarm and a
time; ``post`` shows a change to whoever monitors it, ``decode`` makes sense of
a put or raises ValueError, and ``wire`` packs it as any DBR type and never fails.
Nothing in here waits, so what is posted in one step is seen as one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from caproto import ChannelType, SubscriptionType, native_type

from ioc.access_rules import VALUE_LEVEL
from ioc.alarms import NO_ALARM, UNDEFINED, Alarm
from ioc.dbr import (
    INT32,
    STRING_BYTES,
    TIME_PADDING,
    Wire,
    cut,
    element_bytes,
    numbers,
    packed,
    string,
    structure,
    time_structure,
)
from ioc.rows import Row

MAX_STATES = 16  # that a DBR_CTRL_ENUM has room for
VALUE = SubscriptionType.DBE_VALUE | SubscriptionType.DBE_LOG


class Monitor(Protocol):
    """Who is told of changes; see ``ioc.monitors``."""

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
        self.group: str = row.access  # who may read and put it: see ioc.access_rules
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


class Number(Record):
    """A 64-bit float."""

    data_type = ChannelType.DOUBLE
    blank: Any = 0.0  # what is sent while the value is not known

    def fit(self, value: Any) -> Any:
        return float(value)

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if len(values) != 1:
            raise ValueError(f"{self.name} takes one number, got {len(values)}.")
        number = _number(values[0])
        if not math.isfinite(number):
            raise ValueError(f"{self.name} takes a finite number, got {number}.")
        return number

    def elements(self, native: ChannelType) -> bytes:
        value = self.blank if self.value is None else self.value
        values = value if isinstance(value, tuple) else (value,)
        if native is ChannelType.STRING:
            return b"".join(string(self._format(v)) for v in values)
        return packed(values, native)

    def _format(self, value: Any) -> str:
        text = f"{value:.{self.row.precision}f}"
        return text if len(text) <= STRING_BYTES else f"{value:.15g}"


class Integer(Number):
    """A 32-bit integer: what does not fit is refused in a put, and saturates in a readback."""

    data_type = ChannelType.LONG
    blank: Any = 0

    def fit(self, value: Any) -> Any:
        return max(INT32[0], min(INT32[1], int(value)))

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        value = _integer(super().decode(native, values), self.name)
        least, greatest = self.row.control
        if self.row.control != (0, 0) and not least <= value <= greatest:
            raise ValueError(f"{self.name} takes {least} to {greatest}, got {value}.")
        return value

    def _format(self, value: Any) -> str:
        return str(value)


class Byte(Integer):
    """A number of one byte, as EPICS has for what is true or false of a record."""

    data_type = ChannelType.CHAR


class Short(Integer):
    """A number of two bytes."""

    data_type = ChannelType.INT


class Integers(Integer):
    """An array of up to NELM 32-bit integers."""

    blank = ()

    def fit(self, value: Any) -> Any:
        return tuple(Integer.fit(self, v) for v in value)[: self.nelm]

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if len(values) > self.nelm:
            raise ValueError(f"{self.name} takes up to {self.nelm} numbers, got {len(values)}.")
        return tuple(_integer(_number(v), self.name) for v in values)


class Choice(Record):
    """One of a few named states; its value is the name."""

    data_type = ChannelType.ENUM

    def fit(self, value: Any) -> Any:
        if value not in self.row.choices:
            raise ValueError(f"{self.name} has no state {value!r}")
        return value

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if len(values) != 1:
            raise ValueError(f"{self.name} takes one state, got {len(values)}.")
        if native is ChannelType.STRING and (name := _text(values[0])) in self.row.choices:
            return name
        try:
            index = _integer(_number(values[0]), self.name)
        except ValueError:
            index = -1
        if not 0 <= index < len(self.row.choices):
            got = _text(values[0]) if native is ChannelType.STRING else values[0]
            raise ValueError(f"{self.name} is one of {', '.join(self.row.choices)}, got {got}.")
        return self.row.choices[index]

    def elements(self, native: ChannelType) -> bytes:
        index = 0 if self.value is None else self.row.choices.index(self.value)
        if native is ChannelType.STRING:
            return string(self.row.choices[index])
        return packed([index], native)


class Text(Record):
    """A text of up to NELM - 1 bytes of UTF-8, as a waveform of CHAR."""

    data_type = ChannelType.CHAR

    def fit(self, value: Any) -> Any:
        return cut(str(value), self.nelm - 1)

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if native is ChannelType.CHAR:
            data = np.asarray(values).astype(np.uint8).tobytes().split(b"\0")[0]
        elif native is ChannelType.STRING and len(values) == 1:
            data = bytes(values[0])
            if len(data) >= STRING_BYTES:  # caput cuts what is longer without a word
                raise ValueError(
                    f"{self.name}: a text of more than {STRING_BYTES - 1} characters may have been cut; "
                    "put it as a long string (caput -S)."
                )
        else:
            raise ValueError(f"{self.name} takes a text.")
        if len(data) >= self.nelm:
            raise ValueError(f"{self.name} takes up to {self.nelm - 1} bytes, got {len(data)}.")
        return _text(data)

    def elements(self, native: ChannelType) -> bytes:
        text = self.value or ""
        if native is ChannelType.STRING:
            return string(text)
        # never without an element: C clients take an empty update for the end of a monitor
        return packed(list(text.encode()) or [0], native)


class String(Record):
    """A text of up to 39 bytes, a DBR_STRING; as CHAR (``.VAL$``) it has its end."""

    data_type = ChannelType.STRING

    def fit(self, value: Any) -> Any:
        return cut(str(value), STRING_BYTES)

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if native is not ChannelType.STRING or len(values) != 1:
            raise ValueError(f"{self.name} takes a text.")
        text = _text(values[0]).split("\0")[0]
        if len(text.encode()) > STRING_BYTES:
            raise ValueError(f"{self.name} takes up to {STRING_BYTES} bytes.")
        return text

    def elements(self, native: ChannelType) -> bytes:
        text = self.value or ""
        if native is ChannelType.STRING:
            return string(text)
        if native is ChannelType.CHAR:
            return text.encode() + b"\0"
        try:
            value = _number(text)
        except ValueError:
            value = 0.0
        return packed([value], native)


def record_of(row: Row, prefix: str = "") -> Record:
    """Make the record that a row of the table describes."""
    kinds: dict[str, type[Record]] = {
        "ai": Number,
        "ao": Number,
        "bi": Choice,
        "bo": Choice,
        "busy": Choice,
        "longin": Integer,
        "longout": Integer,
        "mbbi": Choice,
        "mbbo": Choice,
        "stringin": String,
        "stringout": String,
        "waveform": Integers if row.ftvl == "LONG" else Text,
    }
    return kinds[row.record](row.pv(prefix), row)


def _text(data: Any) -> str:
    try:
        return bytes(data).decode("utf-8") if not isinstance(data, str) else data
    except UnicodeDecodeError:
        raise ValueError("The text is not UTF-8.") from None


def _number(value: Any) -> float:
    if isinstance(value, (bytes, str)):
        return float(_text(value).strip())  # ValueError for anything else
    number: float = value.item() if hasattr(value, "item") else value
    return number


def _integer(value: float, name: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{name} takes a whole number, got {value}.")
    if not INT32[0] <= value <= INT32[1]:
        raise ValueError(f"{name} takes 32-bit integers, got {value:.0f}.")
    return int(value)
