"""The kinds of records: what a value of each is, what a put means, and how it is packed.

A number, an integer, a list of them, one of a few states, a long text and a short one;
``record_of`` makes the one that a row of the table describes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from caproto import ChannelType

from ioc.dbr import (
    INT32,
    STRING_BYTES,
    cut,
    packed,
    string,
)
from ioc.record import Record
from ioc.rows import Row


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
