"""The kinds of setpoints that areaDetector's clients put, as rows of the PV table.

A setpoint is *meant* when it does something, *kept* when it is accepted without an
effect (clients put it, and compare the readback), and *fixed* when it can be nothing
else here: another value is refused. The first two are saved for the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from daq_core.state.status import Snapshot
from ioc.commands.area_detector import AreaDetector
from ioc.commands.client import Client
from ioc.commands.commands import Put
from ioc.pvs.row import Row, Source, count, pair
from ioc.pvs.view import View

Prefix = Literal["CAM", "HDF"]
CAM: Prefix = "CAM"
HDF: Prefix = "HDF"


def choices(states: str) -> dict[str, Any]:
    """Return the states of a setpoint, which has no severities."""
    names = tuple(states.split("|"))
    return {"choices": names, "severities": ("",) * len(names)}


def on_area(put: Callable[[AreaDetector, Any, Client], Any]) -> Put:
    """Make a row's put of a method of :class:`AreaDetector`."""
    return lambda commands, value, client: put(commands.area, value, client)


def meant(macro: Prefix, record: Any, pv: str, field: str, description: str, **more: Any) -> tuple[Row, Row]:
    """Make setpoint and readback of something that the next Acquire or Capture uses."""
    put = on_area(lambda area, value, client: area.put(pv, field, value, client))
    put = more.pop("put", put)
    restore = more.pop("restore", put)
    setpoint = Row(pv, record, description, lambda v: getattr(v.area, field), put, restore)
    return pair(replace(setpoint, macro=macro, **more))


def kept(macro: Prefix, record: Any, pv: str, value: Any, description: str, **more: Any) -> tuple[Row, Row]:
    """Make setpoint and readback that are accepted, and have no effect; `value` is the first one."""
    put = on_area(lambda area, value, client: area.keep(f"{macro}:{pv}", value, client))
    setpoint = Row(pv, record, description, lambda v: v.area.kept.get(f"{macro}:{pv}", value), put, put)
    return pair(replace(setpoint, macro=macro, **more))


def fixed(
    macro: Prefix,
    record: Any,
    pv: str,
    value: Source,
    description: str,
    **more: Any,
) -> tuple[Row, Row]:
    """Make setpoint and readback of what can be nothing else; a put of another value is refused."""

    def true(now: Snapshot) -> Any:
        return value(View(now, now.config.layout))

    put = on_area(lambda area, wanted, client: area.confirm(pv, true, wanted, client))
    return pair(Row(pv, record, description, value, put, macro=macro, **more))


def declined(pv: str, reason: str) -> Put:
    """Make the put of a command that cannot be carried out here."""
    return on_area(lambda area, choice, client: area.decline(pv, reason, choice, client))


def pixels(macro: Prefix, pv: str, value: Source, description: str) -> Row:
    return count(pv, value, description, egu="px", macro=macro)
