"""The fields of a record that clients ask for: ``X.EGU``, ``X.DESC``, ``X.SEVR``, ``X.NELM`` and so on.

Each is a read-only record of its own, made when first asked for, of the type
that a C IOC gives it (its unsigned longs are doubles to a client).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from caproto import ChannelType

from ioc.access.rules import FIELD_LEVEL
from ioc.pvs.alarms import NO_ALARM, Severity, Status
from ioc.pvs.row import Row
from ioc.records.record import Record
from ioc.records.record_kinds import Byte, Choice, Integer, Number, Short, String

FTYPES = (
    *("STRING", "CHAR", "UCHAR", "SHORT", "USHORT", "LONG", "ULONG"),
    *("INT64", "UINT64", "FLOAT", "DOUBLE", "ENUM"),
)
SEVERITY_NAMES = tuple(severity.name for severity in Severity)
STATUS_NAMES = tuple(status.name for status in Status)
YES_NO = ("NO", "YES")
PRIORITIES = ("LOW", "MEDIUM", "HIGH")
SCANS = (
    *("Passive", "Event", "I/O Intr", "10 second", "5 second", "2 second", "1 second"),
    *(".5 second", ".2 second", ".1 second"),
)
PINIS = ("NO", "YES", "RUN", "RUNNING", "PAUSE", "PAUSED")
SET_BY_DEVICE = -2  # TSE of a record whose time is that of the event itself
STATE_WORDS = (
    *("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"),
    *("EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF"),
)

Look = Callable[[Record], Any]


def field_of(record: Record, name: str) -> Record | None:
    """Return a record's field, or None where its record type has none of that name."""
    if name in ("", "VAL"):
        return record
    look = _looks(record).get(name)
    if look is None:
        return None
    field = _make(record, name, look(record))
    # Processing is for all who may put something: it shows what is shown anyway.
    field.group, field.level = "RW" if name == "PROC" else record.group, FIELD_LEVEL
    field.refresh = lambda: _follow(field, look(record), record.time)
    field.refresh()
    record.followers.append(field)
    return field


def _follow(field: Record, value: Any, time: float | None) -> None:
    field.post(value, NO_ALARM, time or 0.0)


def _make(record: Record, name: str, value: Any) -> Record:
    full = f"{record.name}.{name}"
    if isinstance(value, _Menu):
        return Choice(full, _row(full, "mbbi", choices=value.choices, severities=("",) * len(value.choices)))
    if name == "PROC":
        return Byte(full, replace(_row(full, "longout"), put=_process))
    if isinstance(value, bool):
        return Byte(full, _row(full, "longin"))
    if isinstance(value, _Short):
        return Short(full, _row(full, "longin"))
    if isinstance(value, str):
        return String(full, _row(full, "stringin"))
    if isinstance(value, float):
        row = record.row
        return Number(full, _row(full, "ai", egu=row.egu, precision=row.precision))
    return Integer(full, _row(full, "longin"))


async def _process(commands: object, value: object, client: object) -> None:
    """Do nothing: every record is up to date by itself, and a command is put, not processed."""


def _row(name: str, record: Any, **more: Any) -> Row:
    return Row(name, record, "", lambda view: None, **more)


class _Short(int):
    """A number of 16 bits."""


class _Menu(str):
    """A choice of an EPICS menu, which is an enum on the wire."""

    choices: tuple[str, ...]

    def __new__(cls, value: str, choices: tuple[str, ...]) -> _Menu:
        menu = super().__new__(cls, value)
        menu.choices = choices
        return menu


def _looks(record: Record) -> dict[str, Look]:
    """Which fields there are, and where each is looked up."""
    row = record.row
    looks: dict[str, Look] = {
        "NAME": lambda r: r.name,
        "DESC": lambda r: row.description,
        "ASG": lambda r: row.access,
        "RTYP": lambda r: row.record,
        "SEVR": lambda r: _severity(r.alarm.severity),
        "STAT": lambda r: _Menu(r.alarm.status.name, STATUS_NAMES),
        "AMSG": lambda r: r.alarm.message,
        "UDF": lambda r: r.value is None,
        "DISA": lambda r: _Short(0),  # ophyd asks a detector's DataType_RBV whether it is disabled
        "DISV": lambda r: _Short(1),
        "DISP": lambda r: False,
        "DISS": lambda r: _severity(0),
        "PROC": lambda r: False,
        "PACT": lambda r: False,
        "PINI": lambda r: _Menu("NO", PINIS),
        "PHAS": lambda r: _Short(0),
        "PRIO": lambda r: _Menu("LOW", PRIORITIES),
        "SCAN": lambda r: _Menu("Passive" if row.put else "I/O Intr", SCANS),
        "TSE": lambda r: _Short(SET_BY_DEVICE),
        # Alarms need not be acknowledged here: the highest one that is not is the present one.
        "ACKS": lambda r: _severity(r.alarm.severity),
        "ACKT": lambda r: _Menu("NO", YES_NO),
    }
    if record.data_type in (ChannelType.LONG, ChannelType.DOUBLE):
        looks["EGU"] = lambda r: row.egu
        looks |= _numeric(row, float if record.data_type == ChannelType.DOUBLE else int)
    if row.record in ("ai", "ao"):
        looks["PREC"] = lambda r: _Short(row.precision)
    if row.record == "waveform":
        looks["FTVL"] = lambda r: _Menu(row.ftvl, FTYPES)
        looks["NELM"] = lambda r: float(row.nelm)
        looks["NORD"] = lambda r: float(r.wire(r.data_type).n if r.value else 0)
    if row.record in ("bi", "bo", "busy"):
        looks["ZNAM"], looks["ONAM"] = map(_constant, row.choices)
        looks["ZSV"], looks["OSV"] = map(_constant, map(_named, row.severities))
    if row.record in ("mbbi", "mbbo"):
        for n, (word, choice, severity) in enumerate(
            zip(STATE_WORDS, row.choices, row.severities, strict=False)
        ):
            looks[f"{word}ST"] = _constant(choice)
            looks[f"{word}SV"] = _constant(_named(severity))
            looks[f"{word}VL"] = _constant(float(n))
    return looks


def _numeric(row: Row, kind: type[float] | type[int]) -> dict[str, Look]:
    limits = row.limits
    looks: dict[str, Look] = {
        "LOPR": lambda r: kind(row.display[0]),
        "HOPR": lambda r: kind(row.display[1]),
        "LOLO": lambda r: kind(limits.lolo or 0),
        "LOW": lambda r: kind(limits.low or 0),
        "HIGH": lambda r: kind(limits.high or 0),
        "HIHI": lambda r: kind(limits.hihi or 0),
        "LLSV": lambda r: _named("" if limits.lolo is None else "MAJOR"),
        "LSV": lambda r: _named("" if limits.low is None else "MINOR"),
        "HSV": lambda r: _named("" if limits.high is None else "MINOR"),
        "HHSV": lambda r: _named("" if limits.hihi is None else "MAJOR"),
        **dict.fromkeys(("HYST", "ADEL", "MDEL"), lambda r: kind(0)),  # every change is told
    }
    if row.record in ("ao", "longout"):
        looks["DRVL"] = lambda r: kind(row.control[0])
        looks["DRVH"] = lambda r: kind(row.control[1])
    return looks


def _constant(value: Any) -> Look:
    return lambda record: value


def _severity(severity: int) -> _Menu:
    return _Menu(SEVERITY_NAMES[severity], SEVERITY_NAMES)


def _named(severity: str) -> _Menu:
    return _Menu(severity or "NO_ALARM", SEVERITY_NAMES)
