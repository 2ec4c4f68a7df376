"""The kinds of records: what a value of each is, what a put means, and how it is packed.

A number, an integer, a list of them, one of a few states, a long text and a short one;
``record_of`` makes the one that a row of the table describes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from caproto import ChannelType

from ioc.pvs.row import Row
from ioc.records.dbr import (
    INT32,
    STRING_BYTES,
    cut,
    packed,
    string,
)
from ioc.records.record import Record

HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F]+")
OCTAL = re.compile(r"[+-]?0[0-7]+")
NOT_OCTAL = re.compile(r"[+-]?0[0-9]+")  # nor meant as decimal, for who knows C
DECIMAL = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|nan)", re.IGNORECASE)


class Number(Record):
    """A 64-bit float."""

    data_type = ChannelType.DOUBLE
    blank: Any = 0.0  # what is sent while the value is not known

    def fit(self, value: Any) -> Any:
        return float(value)

    def decode(self, native: ChannelType, values: Sequence[Any]) -> Any:
        if len(values) != 1:
            raise ValueError(f"{self.name} takes one number, got {len(values)}.")
        number = self.number(values[0])
        if not math.isfinite(number):
            raise ValueError(f"{self.name} takes a finite number, got {number}.")
        return number

    def number(self, value: Any) -> float:
        """Return what one element means; a text means what it does to a C IOC, if it is a number at all."""
        return _number(value, self.name)

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

    def number(self, value: Any) -> float:
        return _number(value, self.name, octal=True)

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
        return tuple(_integer(self.number(v), self.name) for v in values)


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
        name = _text(values[0], self.name) if native is ChannelType.STRING else ""
        if name and name in self.row.choices:
            return name
        try:
            index = _integer(_number(values[0], self.name), self.name)
        except ValueError:
            index = -1
        if not 0 <= index < len(self.row.choices):
            got = _text(values[0], self.name) if native is ChannelType.STRING else values[0]
            named = any(self.row.choices)
            known = ", ".join(self.row.choices if named else map(str, range(len(self.row.choices))))
            raise ValueError(f"{self.name} is one of {known}, got {got}.")
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
        return _text(data, self.name)

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
        text = _text(values[0], self.name).split("\0")[0]
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
            value = _number(text, self.name)
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


def _text(data: Any, name: str) -> str:
    try:
        return bytes(data).decode("utf-8") if not isinstance(data, str) else data
    except UnicodeDecodeError:
        raise ValueError(f"{name}: the text is not UTF-8.") from None


def _number(value: Any, name: str, *, octal: bool = False) -> float:
    """Return a number that was put, as text perhaps: ``0x10`` is 16, and 010 is 8 where there are integers.

    That is how a C IOC reads them. It also takes the beginning of a text for the whole (``12abc``,
    ``1_000``); here such a text is refused.
    """
    if not isinstance(value, (bytes, str)):
        number: float = value.item() if hasattr(value, "item") else value
        return number
    text = _text(value, name).strip(" \t\r\n")
    if HEXADECIMAL.fullmatch(text):
        return float(int(text, 16))
    if octal and OCTAL.fullmatch(text):
        return float(int(text, 8))
    if not DECIMAL.fullmatch(text) or (octal and NOT_OCTAL.fullmatch(text)):
        raise ValueError(f"{name} takes a number, got {text!r}.")
    return float(text)


def _integer(value: float, name: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{name} takes a whole number, got {value}.")
    if not INT32[0] <= value <= INT32[1]:
        raise ValueError(f"{name} takes 32-bit integers, got {value:.0f}.")
    return int(value)
