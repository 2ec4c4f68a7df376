"""The alarm of a PV: a status, a severity, a reason, and the rules that give them.

The IOC computes alarms itself, together with the value, so that a client never
sees one without the other. Names and numbers are EPICS's, the same in each of its protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from ioc.pvs.view import View


class Severity(IntEnum):
    """How bad it is. Source: EPICS base 7, alarm.h, ``epicsSeverity``."""

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3


class Status(IntEnum):
    """What kind of alarm it is. Source: EPICS base 7, alarm.h, ``epicsAlarmCondition``."""

    NO_ALARM = 0
    READ = 1
    WRITE = 2
    HIHI = 3
    HIGH = 4
    LOLO = 5
    LOW = 6
    STATE = 7
    COS = 8
    COMM = 9
    TIMEOUT = 10
    HWLIMIT = 11
    CALC = 12
    SCAN = 13
    LINK = 14
    SOFT = 15
    BAD_SUB = 16
    UDF = 17
    DISABLE = 18
    SIMM = 19
    READ_ACCESS = 20
    WRITE_ACCESS = 21


class Alarm(NamedTuple):
    """Alarm status, severity and, where there is one to give, a reason (field AMSG)."""

    status: Status = Status.NO_ALARM
    severity: Severity = Severity.NO_ALARM
    message: str = ""


AlarmRule = Callable[[View, Any], Alarm]

NO_ALARM = Alarm()
UNDEFINED = Alarm(Status.UDF, Severity.INVALID)
RECEIVER_DOWN = Alarm(Status.COMM, Severity.INVALID, "receiver down")
MINOR = Alarm(Status.HIGH, Severity.MINOR)
MAJOR = Alarm(Status.HIHI, Severity.MAJOR)
FAILED = Alarm(Status.STATE, Severity.MAJOR)
SEVERITIES = {
    "": Severity.NO_ALARM,
    "MINOR": Severity.MINOR,
    "MAJOR": Severity.MAJOR,
    "INVALID": Severity.INVALID,
}


@dataclass(frozen=True)
class Limits:
    """Values beyond which a number is in alarm; None: no such limit."""

    lolo: float | None = None  # MAJOR
    low: float | None = None  # MINOR
    high: float | None = None  # MINOR
    hihi: float | None = None  # MAJOR

    def alarm(self, value: float) -> Alarm:
        """Return the alarm of a value, limits included, as a record does it."""
        if self.hihi is not None and value >= self.hihi:
            return Alarm(Status.HIHI, Severity.MAJOR)
        if self.lolo is not None and value <= self.lolo:
            return Alarm(Status.LOLO, Severity.MAJOR)
        if self.high is not None and value >= self.high:
            return Alarm(Status.HIGH, Severity.MINOR)
        if self.low is not None and value <= self.low:
            return Alarm(Status.LOW, Severity.MINOR)
        return NO_ALARM


NO_LIMITS = Limits()

# Rules: functions of the view and the value.


def is_error(view: View, message: str) -> Alarm:
    """A message of a failed run."""
    return FAILED if message.startswith("ERROR") else NO_ALARM


def above_zero(view: View, value: int) -> Alarm:
    return MINOR if value > 0 else NO_ALARM


def not_empty(view: View, value: str) -> Alarm:
    return MAJOR if value else NO_ALARM


def rising(counter: str) -> AlarmRule:
    """Make the rule of a counter that should stand still: in alarm when it rose in the last seconds."""

    def rule(view: View, value: float) -> Alarm:
        return MINOR if value > getattr(view.earlier, counter) else NO_ALARM

    return rule


def warns(view: View, value: str) -> Alarm:
    """A text that is empty when all is well, and otherwise something to look at."""
    return MINOR if value else NO_ALARM
