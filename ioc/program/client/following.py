"""How the client commands follow a run that is going on: its bar, what it waits for, and its end."""

from __future__ import annotations

import time
from typing import Any

from ioc.program.client.service_client import ServiceClient, ServiceRefused
from ioc.program.progress import shown_progress

POLL_S = 0.1
TAKING = ("WAITING_IMAGES", "ACQUIRING_IMAGES", "WRITING")
"""The states of a run that waits for images; those it has are written in the others."""


def follow(
    service: ServiceClient, shown: dict[str, Any], timeout_s: float | None = None, *, bar: bool = True
) -> dict[str, Any]:
    """Wait for the end of the run that a status shows; return the status that shows its end.

    Parameters
    ----------
    shown : what the service said of itself last, ``writer``
    timeout_s : the run is stopped when no new image has come for so long; None: never
    bar : show how far it is, on a terminal

    Raises
    ------
    ServiceRefused
        Another run began before this one's end was seen, or the DAQ is UNKNOWN.
    """
    run = _begun(shown)
    patience = _Patience(timeout_s)
    with shown_progress(shown["acquisition"]["state"], _total(shown), bar=bar) as show:
        while shown["state"] == "WRITING":
            time.sleep(POLL_S)
            answer = service.answer("/writer/status")
            shown = answer["writer"]
            now = shown["acquisition"]
            run = run or _begun(shown)
            if run is not None and now["stats"]["start_time"] != run:
                raise ServiceRefused(
                    "Another run began before this one's end was seen; `std-daq-ioc logs` shows both."
                )
            if shown["state"] == "WRITING" and patience.is_over(now):
                shown = service.post("/writer/stop", "writer", {})
                note = f"no new image for {timeout_s:g} s: the run was stopped"
            else:
                note = answer.get("waiting", "")
            show(now["stats"]["n_write_completed"], now["state"], _total(shown), note)
    if shown["state"] == "UNKNOWN":
        raise ServiceRefused(
            "The DAQ is in state UNKNOWN: see its log; `std-daq-ioc stop` brings it back to READY."
        )
    return shown


def _begun(shown: dict[str, Any]) -> float | None:
    """Return when the run began; None while its file is not open, and the one before is shown."""
    run = shown["acquisition"]
    is_ended = shown["state"] == "WRITING" and run["state"] in ("FINISHED", "FAILED")
    began: float | None = None if is_ended else run["stats"]["start_time"]
    return began


def _total(shown: dict[str, Any]) -> int | None:
    return shown["acquisition"]["info"]["n_images"] or None


class _Patience:
    """Tells when a run has waited too long for its next image."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._n_images = -1
        self._since = 0.0

    def is_over(self, run: dict[str, Any]) -> bool:
        n_images, now = run["stats"]["n_write_requested"], time.monotonic()
        if n_images != self._n_images or run["state"] not in TAKING:
            self._n_images, self._since = n_images, now
        return self._timeout_s is not None and now - self._since >= self._timeout_s
