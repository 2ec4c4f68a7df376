"""The stream of what PVs show: row, value, alarm and time of each that changed, for the face of any protocol.

Listeners are called in the event loop, one row after the other, in the order of the table; what is
told in one step is one view. A value is the row's own, as long and as large as it is: a protocol
that has not the room for it cuts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ioc.pvs.alarms import Alarm
from ioc.pvs.looks import Looks, changed_parts
from ioc.pvs.row import Row
from ioc.pvs.view import View

Listener = Callable[[Row, Any, Alarm, float], None]
"""Takes a row, its value (None: not known), its alarm, and the time of the change in Unix seconds."""

NOTHING = object()


class _Shown:
    """What was told of a row last."""

    __slots__ = ("alarm", "parts", "row", "value")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.value: Any = NOTHING
        self.alarm: Alarm | None = None
        self.parts: frozenset[str] | None = None  # of the view, on which it depends; None: look at it anew


class PvStream:
    """Usage: ``stream.subscribe(listener)``, then ``stream.show(view, when)`` for each new view.

    `report` is told of a row that cannot be shown, and of why: others are shown all the same, and
    it is tried again with the next view.
    """

    def __init__(self, rows: Iterable[Row], report: Callable[[Row, BaseException], None]) -> None:
        self._shown = [_Shown(row) for row in rows]
        self._report = report
        self._listeners: list[Listener] = []
        self._view: View | None = None  # what was shown last

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of each change from now on, and with the next view of every row."""
        self._listeners.append(listener)
        for shown in self._shown:
            shown.value, shown.parts = NOTHING, None

    def show(self, view: View, when: float) -> None:
        """Tell the listeners of every row whose value or alarm changed."""
        differing, self._view = changed_parts(self._view, view), view
        look = Looks(view)
        for shown in self._shown:
            if shown.parts is not None and differing.isdisjoint(shown.parts):
                continue
            row = shown.row
            look.begin()
            try:
                value = row.value(look)
                alarm = row.alarm(look, value)
                if value != shown.value or alarm != shown.alarm:
                    for listener in self._listeners:
                        listener(row, value, alarm, when)
                    shown.value, shown.alarm = value, alarm
            except Exception as fault:
                shown.parts = None
                self._report(row, fault)
            else:
                shown.parts = look.noted
