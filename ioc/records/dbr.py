"""How values look as DBR types, the types of Channel Access: 40-byte strings and big-endian numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from caproto import ChannelType
from caproto._dbr import DBR_TYPES  # not exported, and the only list of the DBR structures

STRING_BYTES = 39  # of a DBR_STRING, without its end
INT32 = (-(2**31), 2**31 - 1)

EPICS_EPOCH = 631_152_000  # Unix seconds of 1990-01-01; source: epicsTime.h
LATEST_US = 2**32 * 1_000_000 - 1  # in 2126; a clock that is not set is before the epoch
TIME = struct.Struct(">hhII")  # status, severity, seconds and nanoseconds since the EPICS epoch
TIME_PADDING = {  # between them and the elements; source: db_access.h, the RISC_pads of dbr_time_…
    ChannelType.TIME_STRING: b"",
    ChannelType.TIME_INT: bytes(2),
    ChannelType.TIME_FLOAT: b"",
    ChannelType.TIME_ENUM: bytes(2),
    ChannelType.TIME_CHAR: bytes(3),
    ChannelType.TIME_LONG: b"",
    ChannelType.TIME_DOUBLE: bytes(4),
}

NUMERIC: dict[ChannelType, np.dtype[Any]] = {
    ChannelType.INT: np.dtype(">i2"),
    ChannelType.FLOAT: np.dtype(">f4"),
    ChannelType.ENUM: np.dtype(">u2"),
    ChannelType.CHAR: np.dtype("u1"),
    ChannelType.LONG: np.dtype(">i4"),
    ChannelType.DOUBLE: np.dtype(">f8"),
}


@dataclass(frozen=True)
class Wire:
    """A value packed for one DBR type: its structure of metadata, and its elements, big-endian."""

    metadata: Any
    data: bytes
    n: int  # elements

    @cached_property
    def payload(self) -> bytes:
        """Both as they are sent, a multiple of 8 bytes. Never none: that would end a monitor."""
        whole = bytes(self.metadata) + self.data
        return whole + bytes(-len(whole) % 8) or bytes(8)


def structure(kind: ChannelType, **values: Any) -> Any:
    """Return the C structure that stands before the elements of a DBR type."""
    return DBR_TYPES[kind](**values)


def time_structure(kind: ChannelType, status: int, severity: int, time: float | None) -> bytes:
    """Return what stands before the elements of a DBR type with a time: most updates are of these types.

    `time` is in Unix seconds; None: never, which is the EPICS epoch, and clients show as undefined.
    """
    since = 0 if time is None else round((time - EPICS_EPOCH) * 1e6)
    seconds, microseconds = divmod(max(0, min(since, LATEST_US)), 1_000_000)
    return TIME.pack(status, severity, seconds, 1000 * microseconds) + TIME_PADDING[kind]


def element_bytes(native: ChannelType) -> int:
    """Return the size of one element of a native type."""
    return 40 if native is ChannelType.STRING else NUMERIC[native].itemsize


def packed(values: Iterable[float], native: ChannelType) -> bytes:
    """Return numbers as big-endian elements of a numeric type; what does not fit saturates, NaN is 0."""
    return bytes(numbers(values, native).tobytes())


def numbers(values: Iterable[float], native: ChannelType) -> npt.NDArray[Any]:
    """Return numbers as a big-endian array of a numeric type; what does not fit saturates, NaN is 0."""
    dtype = NUMERIC[native]
    array = np.asarray(list(values))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=0.0, posinf=1e300, neginf=-1e300)
    bounds = np.iinfo(dtype)
    clipped: npt.NDArray[Any] = np.clip(array, bounds.min, bounds.max).astype(dtype)
    return clipped


def cut(text: str, n_bytes: int) -> str:
    """Return a text's longest beginning of at most `n_bytes` bytes, no character halved."""
    return text.encode("utf-8", "replace")[:n_bytes].decode("utf-8", "ignore")


def string(text: str) -> bytes:
    """Return a text as an element of a DBR_STRING."""
    return cut(text, STRING_BYTES).encode().ljust(40, b"\0")
