"""What the areaDetector PVs show, where it takes more than one attribute of the view to say."""

from __future__ import annotations

from daq_core.state.status import AcquisitionState, DaqState
from ioc.pvs.view import View
from ioc.values.area import wrapped


def data_type(view: View) -> str:
    """Return the type of a pixel in the file, as areaDetector names it: ``UInt16``."""
    name = view.layout.dtype.name
    return name.replace("uint", "UInt") if name.startswith("u") else name.capitalize()


def time_remaining(view: View) -> float | None:
    """Return the seconds an Acquire still takes, as fast as images come now; None where that is not known."""
    area = view.area
    if area.phase not in ACTIVE:
        return 0.0
    wanted = {"Single": 1, "Multiple": area.num_images}.get(area.image_mode)
    if wanted is None or not area.passed_per_second:
        return None
    return max(0, wanted - area.n_acquired) / area.passed_per_second


STATES = {
    AcquisitionState.WAITING_IMAGES: "Waiting",
    AcquisitionState.ACQUIRING_IMAGES: "Acquire",
    AcquisitionState.WRITING: "Acquire",
    AcquisitionState.FLUSHING_IMAGES: "Saving",
}
ACTIVE = ("Waiting", "Acquire", "Saving", "Aborting")


def detector_state(view: View) -> str:
    """Return DetectorState_RBV: of an Acquire while one is active, else of a run.

    A run that Capture began says nothing of the detector: a client may capture for
    hours, and see the detector Idle after each Acquire.
    """
    status, run, area = view.status, view.run, view.area
    if status.receiver_down and view.deployment.status != "RUNNING":
        return "Disconnected"
    if status.state is DaqState.UNKNOWN:
        return "Initializing"
    if area.phase in ACTIVE:
        return area.phase
    if run.running and "Capture" not in view.command.active:
        return STATES[run.state]
    if run.state is AcquisitionState.FAILED and (run.stop_time or 0) > area.acquire_ended:
        return "Error"
    return area.phase


def shown_file_name(view: View) -> str:
    """Return the file of the run that is beginning, going on, or the last there was."""
    request = view.status.pending or view.request
    return "" if request is None else request.output_file


def num_captured(view: View) -> int:
    """Return the images on disk, 0 from the moment a run is accepted."""
    return 0 if view.status.pending is not None else wrapped(view.run.n_write_completed)


def num_acquired(view: View) -> int:
    """Return the images since the last Acquire began."""
    return wrapped(view.area.n_acquired)


def num_dropped(view: View) -> int:
    return wrapped(view.losses.dropped_images)


def refusal(view: View) -> str:
    """Return why a file was not begun, as long as no other has been begun since."""
    return view.area.refused if view.area.refused_at >= (view.run.start_time or 0) else ""


def write_message(view: View) -> str:
    """Return why the last file was not begun, or else how the run stands."""
    return refusal(view) or ("Waiting for Acquire." if waits_for_acquire(view) else view.run.message)


def waits_for_acquire(view: View) -> bool:
    """Tell whether the run takes no image until somebody puts Acquire to 1."""
    area, run = view.area, view.run
    if not run.running or run.request is not area.run_by_valve:
        return False
    return run.state is not AcquisitionState.FLUSHING_IMAGES and area.phase not in ACTIVE


def write_failed(view: View) -> bool:
    return bool(refusal(view)) or view.run.state is AcquisitionState.FAILED
