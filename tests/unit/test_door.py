"""What stands behind the door has all that a face may ask for, and the real DAQ has it as the door says.

That faces ask for nothing else is in their types, and in the tests of each of them: they get
``tests.daq.simulated_daq.OnlyDoor``.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from daq_core.control.daq import Daq
from daq_core.control.door import Door, ImageValve
from daq_core.pipeline.valve import Valve
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq, SimulatedValve, members_of

PAIRS = [(Door, Daq), (Door, SimulatedDaq), (ImageValve, Valve), (ImageValve, SimulatedValve)]


def methods(protocol: type) -> dict[str, Any]:
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}


@pytest.mark.parametrize(("protocol", "kind"), PAIRS)
def test_each_method_of_the_door_takes_what_the_door_says(protocol: type, kind: type) -> None:
    ours = {name: method for name, method in methods(protocol).items() if not name.startswith("_")}
    assert len(ours) >= 2
    for name, method in ours.items():
        theirs = getattr(kind, name)
        assert inspect.signature(theirs).parameters == inspect.signature(method).parameters
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(method), name


def test_a_face_that_asks_for_what_the_door_has_not_gets_an_error() -> None:
    door = OnlyDoor(Daq)
    assert {"start", "snapshot", "valve"} <= members_of(Door)
    assert door.start is Daq.start
    with pytest.raises(AttributeError, match="warn_of_config, which Door has not"):
        _ = door.warn_of_config
