"""The process that mends: it makes the file of a run readable whose writer could not close it.

Forked for one file, with the rights of the run's user, because a file system may hang. It answers
one question (``daq_core.processes.question``), which ``daq_core.control.repairs`` asks. HDF5 may do worse
than hang on a damaged file, so the work is a child's (``daq_core.files.guarded``), which ends when
nobody waits for it.
"""

from __future__ import annotations

import socket
from functools import partial

from daq_core.errors import DaqError
from daq_core.files.guarded import guarded
from daq_core.files.parts import repair_run
from daq_core.files.reports import RepairReport
from daq_core.linux.user import become, find_owner
from daq_core.processes.question import answer
from daq_core.writing.task import MendTask

MEND_S = 60.0  # for a file to be mended; HDF5 may hang on a damaged one


def run_mend(channel: socket.socket) -> None:
    """Mend one file, in a process of its own that is forked for it."""
    answer(channel, MendTask, lambda task: _mend(task, channel))


def _mend(task: MendTask, channel: socket.socket) -> RepairReport:
    work = partial(
        repair_run, task.output_file, failure=task.failure, run_id=task.run_id, roots=task.output_roots
    )
    try:
        become(find_owner(task.writer_user_id, writer_group=task.writer_group))
        return guarded(work, MEND_S, wanted_by=channel)
    except (OSError, DaqError) as error:
        return RepairReport(task.output_file, "failed", None, str(error))
