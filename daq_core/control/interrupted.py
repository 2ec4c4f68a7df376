"""How a run ended that was going on when the service was killed, found out at the next start.

The writer outlives its service for a moment: it drains the ring and closes the
file. So the file is looked at until nobody has it open. One that was never closed,
after a power cut, is repaired.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from daq_core.control.repairs import mend
from daq_core.errors import DaqError
from daq_core.files.reports import RecordedEnd, RepairReport
from daq_core.processes.forks import ForkServer
from daq_core.showing.journal import Begun
from daq_core.state.losses import Losses
from daq_core.state.status import Acquisition, AcquisitionState
from daq_core.writing.task import MendTask

log = logging.getLogger(__name__)

SERVICE_KILLED = "ERROR: the service was killed while the run was going on"
PATIENCE_S = 60.0  # for a writer that is left to close its file
LOOK_S = 10.0  # for a file system to answer


async def end_of(begun: Begun, output_roots: tuple[str, ...], forks: ForkServer) -> Acquisition:
    """Return the acquisition as its file tells it; FAILED, unless the file was closed in order.

    Never raises for what is found.
    """
    path = begun.request.output_file
    task = MendTask(
        output_file=path,
        run_id=str(begun.request.run_id),
        writer_user_id=begun.writer_user_id,
        writer_group=begun.writer_group,
        output_roots=output_roots,
    )
    try:
        report = await mend(forks, task, look_s=LOOK_S, patience_s=PATIENCE_S)
    except TimeoutError:
        report = RepairReport(path, "failed", None, f"{path} could not be looked at: no answer")
    except DaqError as error:
        report = RepairReport(path, "failed", None, str(error))
    return _acquisition(begun, report)


def _losses(end: RecordedEnd | None) -> Losses | None:
    if end is None or end.losses is None:
        return None
    counted: dict[str, Any] = end.losses
    return Losses(**counted)


def _acquisition(begun: Begun, report: RepairReport) -> Acquisition:
    end = report.end
    if end is not None and end.run_id != str(begun.request.run_id):
        end = None  # a file of another run: ours was never made
    n_images = report.n_images or 0 if end is not None else 0
    finished = end is not None and end.state == AcquisitionState.FINISHED
    failed = f"{SERVICE_KILLED}." if end is not None else f"{SERVICE_KILLED}; {report.message}"
    if not finished:
        log.warning("%s: %s (%s)", begun.request.output_file, SERVICE_KILLED, report.message)
    return Acquisition(
        state=AcquisitionState.FINISHED if finished else AcquisitionState.FAILED,
        message=end.message if finished and end is not None else failed,
        request=begun.request,
        n_write_requested=n_images,
        n_write_completed=n_images,
        start_time=begun.start_time,
        stop_time=time.time(),
        losses=_losses(end),
    )
