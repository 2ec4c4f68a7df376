"""How the client commands show a run: every state, with losses, without, and where nobody knows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daq_core.state.losses import Losses
from daq_core.state.status import Acquisition, AcquisitionState, DaqState, DaqStatus, WriteRequest
from ioc.program.client.run_lines import is_whole, log_line, losses_of, status_lines, why_busy
from rest_bridge import models

REQUEST = WriteRequest("/data/a.h5", 10, 7)
LOSSY = Losses(missing_packets=3, incomplete_images=2, not_good_images=2, silent_modules=(1,))
LOSSES_LINE = "losses   2 images incomplete, 3 packets missing, nothing from module 1; efficiency 20.0%"
YELLOW, RED, PLAIN = "\x1b[33m", "\x1b[31m", "\x1b[0m"


def run_of(state: str, losses: Losses | None = LOSSY, message: str = "", n_images: int = 10) -> Acquisition:
    request = WriteRequest(REQUEST.output_file, n_images, REQUEST.run_id)
    return Acquisition(AcquisitionState(state), message, request, 4, 4, 1_700_000_000.0, losses=losses)


def wire(acquisition: Acquisition, state: str = "READY") -> dict[str, Any]:
    """Return what the service says of it by REST."""
    return models.WriterStatus.of(DaqStatus(DaqState(state), acquisition)).model_dump()


def test_losses_come_back_from_the_wire_as_they_were() -> None:
    every = Losses(
        missing_packets=1,
        incomplete_images=2,
        sparse_images=3,
        dropped_images=4,
        mismatched_images=5,
        other_format_images=6,
        invalid_pixels=7,
        silent_modules=(8, 9),
    )
    assert losses_of(wire(run_of("FINISHED", every))["acquisition"]["stats"]) == every


@pytest.mark.parametrize(
    ("losses", "line", "whole"),
    [
        (Losses(), "losses   none; efficiency 40.0%", True),
        (
            LOSSY,
            f"{YELLOW}{LOSSES_LINE}{PLAIN}",
            False,
        ),
        (None, "losses   not known", False),
    ],
)
def test_the_status_has_a_line_of_losses(losses: Losses | None, line: str, whole: bool) -> None:
    run = wire(run_of("FINISHED", losses, "Interrupted."))
    assert line in status_lines(run)
    assert is_whole(run["acquisition"]) is whole


def test_a_service_that_does_not_tell_losses_is_shown_and_is_not_called_whole() -> None:
    run = wire(run_of("FINISHED"))
    stats = run["acquisition"]["stats"]
    run["acquisition"]["stats"] = {
        key: stats[key] for key in ("n_write_completed", "n_write_requested", "start_time", "stop_time")
    }
    assert "losses   not known" in status_lines(run)
    assert not is_whole(run["acquisition"])


@pytest.mark.parametrize(
    ("run", "columns", "colour"),
    [
        (
            run_of("FINISHED", LOSSY, "Completed."),
            "FINISHED Completed. 4/10 images 2 incomplete, module 1 silent",
            YELLOW,
        ),
        (run_of("FINISHED", Losses(), "Interrupted."), "FINISHED Interrupted. 4/10 images -", ""),
        (run_of("FINISHED", Losses(), "Interrupted.", 0), "FINISHED Interrupted. 4/- images -", ""),
        (run_of("FAILED", None, "ERROR: no disk"), "FAILED 4/10 images not known", RED),
    ],
)
def test_a_row_of_the_list_has_state_images_losses_file_and_what_went_wrong(
    run: Acquisition, columns: str, colour: str
) -> None:
    row = log_line(wire(run)["acquisition"])
    wrong = f" {run.message}" if run.state is AcquisitionState.FAILED else ""
    assert row.startswith(colour + "2023-11-1")
    assert " ".join(row.removesuffix(PLAIN).split()).endswith(f"{columns} /data/a.h5{wrong}")


@pytest.fixture
def in_zone() -> Iterator[Callable[[str], None]]:
    """Be in another time zone for one test."""
    with pytest.MonkeyPatch.context() as here:

        def move(zone: str) -> None:
            here.setenv("TZ", zone)
            time.tzset()

        yield move
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC0", "2023-11-14 22:13:20+00:00"), ("JST-9", "2023-11-15 07:13:20+09:00")]
)
def test_times_are_those_of_the_readers_own_zone(
    in_zone: Callable[[str], None], zone: str, shown: str
) -> None:
    in_zone(zone)
    run = wire(run_of("FINISHED", Losses(), "Completed."))
    assert log_line(run["acquisition"]).startswith(shown + "  ")
    assert f"started  {shown}" in status_lines(run)
    assert f"since {shown}. " in why_busy(wire(run_of("WRITING"), "WRITING"))


@pytest.mark.parametrize(
    ("state", "acquisition", "said"),
    [
        ("WRITING", run_of("WRITING"), "A run is going on: /data/a.h5, 4 of 10 images, since 2023-11-1"),
        ("WRITING", run_of("WRITING", n_images=0), "/data/a.h5, 4 of any number of images, since"),
        ("WRITING", run_of("FINISHED"), "A run is about to begin."),
        ("WRITING", Acquisition(), "A run is about to begin."),
        ("UNKNOWN", run_of("FAILED"), "The DAQ is not ready (state UNKNOWN)"),
        ("READY", run_of("FINISHED"), "has ended by now. Start again."),
    ],
)
def test_why_no_run_can_be_started_is_a_sentence_in_every_state(
    state: str, acquisition: Acquisition, said: str
) -> None:
    text = why_busy(wire(acquisition, state))
    assert said in text
    assert state == "READY" or "std-daq-ioc stop" in text
    assert "{" not in text
