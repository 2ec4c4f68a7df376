"""Which parts of a view a PV looks at, so that it is looked up again only when one of them has changed.

A row's value and alarm are functions of the view alone. What they looked at the last time
decides what they are: while these parts are the same objects, so is the result. Most views
differ in one or two parts, a setpoint's put in one; a full look at all PVs takes a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import Any

from ioc.pvs.view import View

PARTS = tuple(field.name for field in fields(View))


def changed_parts(before: View | None, after: View) -> frozenset[str]:
    """Return the names of the parts that are not the same objects."""
    if before is None:
        return frozenset(PARTS)
    return frozenset(name for name in PARTS if getattr(before, name) is not getattr(after, name))


class Looks(View):
    """A view that notes which of its parts are looked at."""

    _noted: set[str]
    _view: View
    _shared: dict[str, tuple[Any, frozenset[str]]]  # what several rows use: its value, and its parts

    def __init__(self, view: View) -> None:
        vars(self).update(_noted=set(), _view=view, _shared={})

    def begin(self) -> None:
        """Note from now on what the next row looks at."""
        vars(self)["_noted"] = set()

    @property
    def noted(self) -> frozenset[str]:
        """The parts that were looked at since `begin`."""
        return frozenset(self._noted)


def _part(name: str) -> Callable[[Looks], Any]:
    def look(self: Looks) -> Any:
        self._noted.add(name)
        return getattr(self._view, name)

    return look


def _worked_out_once(name: str, work_out: Callable[[Any], Any]) -> Callable[[Looks], Any]:
    def look(self: Looks) -> Any:
        if name not in self._shared:
            outer = self._noted
            self.begin()
            try:
                self._shared[name] = (work_out(self), self.noted)
            finally:
                vars(self)["_noted"] = outer
        value, parts = self._shared[name]
        self._noted.update(parts)
        return value

    return look


for _name in PARTS:
    setattr(Looks, _name, property(_part(_name)))
for _name, _member in list(vars(View).items()):
    if isinstance(_member, cached_property):
        setattr(Looks, _name, property(_worked_out_once(_name, _member.func)))
