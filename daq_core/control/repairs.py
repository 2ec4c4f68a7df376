"""Has a file mended that its writer could not close, by a process that is forked for it.

Somebody may still have the file open: a writer closes its channel before its file, and one that
outlived its service drains the ring first. Nobody is told when it is done, so the process is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from daq_core.errors import DaqError
from daq_core.files.reports import RepairReport
from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import MEND
from daq_core.processes.question import ask
from daq_core.writing.task import MendTask, WriterTask

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5


async def mend(forks: ForkServer, task: MendTask, *, look_s: float, patience_s: float) -> RepairReport:
    """Have a file mended; returns what was found and done.

    Parameters
    ----------
    look_s : for its file system to answer
    patience_s : for another process to close the file; after that it is reported as ``open elsewhere``

    Raises
    ------
    TimeoutError
        Its file system did not answer.
    Unavailable
        No process could be started, or it ended without an answer.
    """
    deadline, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        report = await ask(forks, MEND, task, RepairReport, look_s)
        if report.outcome != "open elsewhere" or time.monotonic() > deadline:
            return report
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def mend_run(forks: ForkServer, run: WriterTask, reason: str, patience_s: float) -> bool:
    """Have the file of a run that failed mended, with the reason in it; returns whether that was possible.

    What was found is in the log.
    """
    task = MendTask(
        output_file=run.output_file,
        run_id=str(run.run_id),
        writer_user_id=run.writer_user_id,
        writer_group=run.writer_group,
        output_roots=run.output_roots,
        failure=f"ERROR: {reason}",
    )
    try:
        async with asyncio.timeout(patience_s):
            report = await mend(forks, task, look_s=patience_s, patience_s=patience_s)
    except (DaqError, TimeoutError) as error:
        why = str(error) or "no answer in time, or it is still open elsewhere"
        log.error("%s could not be repaired yet: %s", run.output_file, why)
        return False
    log.warning("%s", report.message)
    return True
