"""PVs are looked up again only when what they look at has changed, and none is ever missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daq_core.config import DaqConfig
from daq_core.state import events as ev
from daq_core.state.status import WriteRequest
from ioc.commands.client import Client
from ioc.pvs.looks import PARTS, Looks, changed_parts
from ioc.pvs.view import View
from ioc.values.operator import FaceHealth, Setpoints
from tests.channel_access.ioc_thread import IocThread
from tests.processes.service import JUNGFRAU_2

SOMEBODY = Client("somebody", "somewhere", "127.0.0.1")


@pytest.fixture
def ioc() -> Any:
    with IocThread(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as ioc:
        yield ioc


def noted(view: View, look: Callable[[Any], object]) -> frozenset[str]:
    looks = Looks(view)
    looks.begin()
    look(looks)
    return looks.noted


def test_what_is_looked_at_is_noted_however_it_is_reached(ioc: IocThread) -> None:
    view = ioc.ioc.view
    assert noted(view, lambda v: 1) == frozenset()
    assert noted(view, lambda v: v.next.n_images) == {"next"}
    assert noted(view, lambda v: v.status.state) == {"snapshot"}
    assert noted(view, lambda v: v.age_s) == {"now", "snapshot"}
    assert noted(view, lambda v: v.staged) == {"snapshot", "staging"}
    assert noted(view, lambda v: v.staged_json) == {"snapshot", "staging"}
    assert noted(view, lambda v: v.log(1)) == {"snapshot"}


def test_what_several_rows_use_is_worked_out_once_and_noted_for_each(ioc: IocThread) -> None:
    looks = Looks(ioc.ioc.view)
    for _ in range(2):
        looks.begin()
        assert looks.staged is looks.staged
        assert looks.noted == {"snapshot", "staging"}


def test_a_view_differs_in_the_parts_that_are_other_objects(ioc: IocThread) -> None:
    view = ioc.ioc.view
    assert changed_parts(None, view) == frozenset(PARTS)
    assert changed_parts(view, view) == frozenset()
    assert changed_parts(view, replace(view, next=Setpoints(n_images=7), now=1.0)) == {"next", "now"}


def test_after_any_change_all_pvs_show_what_a_full_look_gives(ioc: IocThread, tmp_path: Path) -> None:
    daq, commands = ioc.daq, ioc.ioc.commands
    request = WriteRequest.checked(str(tmp_path / "run.h5"), 3)
    steps: list[Callable[[], Any]] = [
        lambda: ioc.do(commands.put_output_file(str(tmp_path / "x.h5"), SOMEBODY)),
        lambda: ioc.do(commands.put_n_images(12, SOMEBODY)),
        lambda: ioc.do(commands.put_key("CfgWriterUserId", "writer_user_id", 77, SOMEBODY)),
        lambda: ioc.do(commands.put_corners((1, 2, 3, 4), SOMEBODY)),
        lambda: ioc.do(commands.revert_config("Revert", SOMEBODY)),
        lambda: ioc.do(commands.area.put("NumCapture", "num_capture", 5, SOMEBODY)),
        lambda: ioc.do(commands.area.put_file_path(str(tmp_path), SOMEBODY)),
        lambda: ioc.do(daq.start(request)),
        lambda: ioc.receive(2),
        lambda: ioc.apply(ev.ReceiverLost("killed")),
        lambda: ioc.apply(ev.PipelineReady()),
        lambda: ioc.do(daq.stop()),
        lambda: ioc.do(daq.configure({"writer_user_id": 5})),
        lambda: ioc.do(daq.reconfigured()),
        lambda: setattr(ioc, "health", FaceHealth(redis_connected=False, errors=3, last_error="gone")),
    ]
    for step in steps:
        step()
        ioc.do(compare(ioc))


async def compare(ioc: IocThread) -> None:
    face = ioc.ioc
    face.beat()
    for record in face.records.values():
        value = record.row.value(face.view)
        if value is not None:
            assert record.value == record.fit(value), record.name
            assert record.alarm == record.row.alarm(face.view, value), record.name
