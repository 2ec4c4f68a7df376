"""The alarm of a PV: a status, a severity, a reason, and the rules that give them.

The IOC computes alarms itself, together with the value, so that a client never
sees one without the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from caproto import AlarmSeverity, AlarmStatus

from ioc.pvs.view import View


class Alarm(NamedTuple):
    """Alarm status, severity and, where there is one to give, a reason (field AMSG)."""

    status: AlarmStatus = AlarmStatus.NO_ALARM
    severity: AlarmSeverity = AlarmSeverity.NO_ALARM
    message: str = ""


AlarmRule = Callable[[View, Any], Alarm]

NO_ALARM = Alarm()
UNDEFINED = Alarm(AlarmStatus.UDF, AlarmSeverity.INVALID_ALARM)
RECEIVER_DOWN = Alarm(AlarmStatus.COMM, AlarmSeverity.INVALID_ALARM, "receiver down")
MINOR = Alarm(AlarmStatus.HIGH, AlarmSeverity.MINOR_ALARM)
MAJOR = Alarm(AlarmStatus.HIHI, AlarmSeverity.MAJOR_ALARM)
FAILED = Alarm(AlarmStatus.STATE, AlarmSeverity.MAJOR_ALARM)
SEVERITIES = {
    "": AlarmSeverity.NO_ALARM,
    "MINOR": AlarmSeverity.MINOR_ALARM,
    "MAJOR": AlarmSeverity.MAJOR_ALARM,
    "INVALID": AlarmSeverity.INVALID_ALARM,
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
            return Alarm(AlarmStatus.HIHI, AlarmSeverity.MAJOR_ALARM)
        if self.lolo is not None and value <= self.lolo:
            return Alarm(AlarmStatus.LOLO, AlarmSeverity.MAJOR_ALARM)
        if self.high is not None and value >= self.high:
            return Alarm(AlarmStatus.HIGH, AlarmSeverity.MINOR_ALARM)
        if self.low is not None and value <= self.low:
            return Alarm(AlarmStatus.LOW, AlarmSeverity.MINOR_ALARM)
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
