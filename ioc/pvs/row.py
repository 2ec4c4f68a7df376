"""What a PV is: one frozen row of the table in ``ioc.pvs.daq``, and the kinds of rows there are.

Everything that is said about a PV anywhere (the record that Channel Access
serves, ``db/daq.template``, the reference in the docs) is made from its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ioc.access.rules import AccessGroup
from ioc.commands.commands import Put
from ioc.pvs.alarms import (
    NO_ALARM,
    NO_LIMITS,
    RECEIVER_DOWN,
    SEVERITIES,
    UNDEFINED,
    Alarm,
    AlarmRule,
    Limits,
    Status,
)
from ioc.pvs.view import View

RecordType = Literal[
    "ai", "ao", "bi", "bo", "busy", "longin", "longout", "mbbi", "mbbo", "stringin", "stringout", "waveform"
]
Source = Callable[[View], Any]

MACROS = {"R": "DAQ:", "IOC": "IOC:", "CAM": "cam1:", "HDF": "HDF1:"}
"""Prefix macros of the database and their defaults; a PV is ``$(P)$(R=DAQ:)Name``."""


READBACKS: dict[RecordType, RecordType] = {
    "ao": "ai",
    "bo": "bi",
    "longout": "longin",
    "mbbo": "mbbi",
    "stringout": "stringin",
    "waveform": "waveform",
}
"""Record type of the readback that goes with a setpoint."""


@dataclass(frozen=True, eq=False)  # a row is itself alone, so that it can be looked up quickly
class Row:
    """One PV: what it is called, what it shows, and what a put does."""

    name: str  # behind the prefix: "State_RBV"
    record: RecordType
    description: str  # at most 40 bytes: field DESC
    value: Source  # what it shows; None means not known (yet)
    put: Put | None = None  # what a put of a valid value does; None: read only
    restore: Put | None = None  # what puts a saved value back, starting nothing; None: it is not saved
    macro: str = "R"
    ftvl: Literal["CHAR", "LONG"] = "CHAR"  # of a waveform
    nelm: int = 1
    egu: str = ""
    precision: int = 0
    choices: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()  # of the choices, "" for none
    display: tuple[float, float] = (0, 0)  # LOPR, HOPR
    control: tuple[float, float] = (0, 0)  # DRVL, DRVH of a setpoint
    limits: Limits = NO_LIMITS
    rule: AlarmRule | None = None  # beyond limits and severities
    needs_receiver: bool = False  # INVALID/COMM while the receiver is down
    putters: AccessGroup = "RW"  # field ASG of a PV that can be put

    @property
    def access(self) -> AccessGroup:
        """The access security group: RO where nothing can be put."""
        return "RO" if self.put is None else self.putters

    def pv(self, prefix: str) -> str:
        """Return the PV's whole name, e.g. ``X02DA:DAQ:State_RBV``."""
        return prefix + MACROS[self.macro] + self.name

    def alarm(self, view: View, value: Any) -> Alarm:
        """Return the alarm that goes with a value; None, not known, is undefined."""
        if value is None:
            return UNDEFINED
        if self.needs_receiver and view.snapshot.status.receiver_down:
            return RECEIVER_DOWN._replace(message=view.snapshot.status.reason)
        if self.rule is not None:
            return self.rule(view, value)
        if self.choices:
            severity = SEVERITIES[self.severities[self.choices.index(value)]]
            return Alarm(Status.STATE, severity) if severity else NO_ALARM
        if self.record in ("ai", "longin"):
            return self.limits.alarm(value)
        return NO_ALARM


def states(text: str) -> dict[str, Any]:
    """Read ``"READY|UNKNOWN:INVALID"`` into choices and their severities."""
    pairs = [part.partition(":")[::2] for part in text.split("|")]
    return {"choices": tuple(p[0] for p in pairs), "severities": tuple(p[1] for p in pairs)}


# The kinds of PV there are. A record type is what a C IOC would use for it.


def enum(name: str, text: str, value: Source, description: str, **more: Any) -> Row:
    """Make a readback with states: ``bi`` for two of them, ``mbbi`` for more."""
    kinds = states(text)
    record: RecordType = "bi" if len(kinds["choices"]) == 2 else "mbbi"
    return Row(name, record, description, value, **kinds, **more)


def flag(name: str, text: str, value: Callable[[View], bool | None], description: str, **more: Any) -> Row:
    """Make a two-state readback of something that is false (first state) or true."""
    kinds = states(text)

    def state(view: View) -> str | None:
        truth = value(view)
        return None if truth is None else kinds["choices"][bool(truth)]

    return Row(name, "bi", description, state, **kinds, **more)


def command(name: str, text: str, put: Put, description: str, record: RecordType = "bo", **more: Any) -> Row:
    """Make a command: a put of 1 (or its name) acts, and it reads 1 exactly while it is active."""
    kinds = states(text)

    def state(view: View) -> str:
        return str(kinds["choices"][name in view.command.active])

    return Row(name, record, description, state, put, **kinds, **{"putters": "CMD"} | more)


def action(macro: str, name: str, put: Put, description: str) -> Row:
    """Make a command whose states have no names, as areaDetector has them for what is done at once."""
    nameless = ("", "")
    return Row(
        name,
        "bo",
        description,
        lambda v: "",
        put,
        macro=macro,
        choices=nameless,
        severities=nameless,
        putters="CMD",
    )


def choice(name: str, text: str, value: Source, put: Put, description: str) -> Row:
    """Make a setpoint with states."""
    return Row(name, "mbbo", description, value, put, **states(text))


def text(name: str, nelm: int, value: Source, description: str, put: Put | None = None, **more: Any) -> Row:
    """Make a text longer than the 39 characters of a string: a waveform of CHAR, UTF-8."""
    return Row(name, "waveform", description, value, put, nelm=nelm, **more)


def string(name: str, value: Source, description: str, **more: Any) -> Row:
    """Make a short text, at most 39 bytes."""
    return Row(name, "stringin", description, value, **more)


def count(name: str, value: Source, description: str, **more: Any) -> Row:
    """Make a 32-bit integer readback."""
    return Row(name, "longin", description, value, **more)


def number(name: str, egu: str, precision: int, value: Source, description: str, **more: Any) -> Row:
    """Make a floating-point readback."""
    return Row(name, "ai", description, value, egu=egu, precision=precision, **more)


def setting(
    name: str, value: Source, put: Put, description: str, control: tuple[int, int] = (0, 0), **more: Any
) -> Row:
    """Make a 32-bit integer setpoint; `control` are the least and greatest value there are, (0, 0): any."""
    return Row(name, "longout", description, value, put, control=control, **more)


def pair(setpoint: Row, **more: Any) -> tuple[Row, Row]:
    """Make the readback of a setpoint that is always as it was put; `more` is what differs in it."""
    differs: dict[str, Any] = {"name": f"{setpoint.name}_RBV", "record": READBACKS[setpoint.record]}
    differs |= {"put": None, "restore": None}
    return setpoint, replace(setpoint, **differs | {"control": (0, 0)} | more)


def integers(name: str, nelm: int, egu: str, value: Source, description: str, put: Put | None = None) -> Row:
    """Make an array of 32-bit integers."""
    return Row(name, "waveform", description, value, put, nelm=nelm, egu=egu, ftvl="LONG")


def for_experts(*rows: Row) -> tuple[Row, ...]:
    """Put rows into the group of what experts may put: what can make a detector unusable."""
    return tuple(replace(row, putters="ADM") for row in rows)
