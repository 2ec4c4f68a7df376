"""How a run ended that was going on when the service was killed, found out at the next start.

The writer outlives its service for a moment: it drains the ring and closes the
file. So the file is looked at until nobody has it open. One that was never closed,
after a power cut, is repaired. A process does it, with the rights of the run's user,
because a file system may hang.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from daq_core.control.journal import Begun
from daq_core.errors import DaqError
from daq_core.state.losses import Losses
from daq_core.state.status import Acquisition, AcquisitionState
from daq_core.writing.task import WriterTask

log = logging.getLogger(__name__)

INTERRUPTED = "ERROR: the service was killed while the run was going on"
PATIENCE_S = 60.0  # for a writer that is left to close its file
LOOK_S = 10.0  # for a file system to answer
PAUSE_S = 0.5

OpenChannel = Callable[[], Awaitable[socket.socket]]


async def end_of(begun: Begun, task: WriterTask, open_channel: OpenChannel) -> Acquisition:
    """Return the acquisition as its file tells it; FAILED, unless the file was closed in order.

    Parameters
    ----------
    task : WriterTask
        One for the run's request; what matters of it is the file.
    open_channel
        Forks a writer process and returns our end of its channel.
    """
    task = replace(task, repair=True, writer_user_id=begun.writer_user_id, writer_group=begun.writer_group)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = await _ask(task, open_channel)
        if not answer.get("open_elsewhere") or time.monotonic() > deadline:
            return _acquisition(begun, answer)
        await asyncio.sleep(PAUSE_S)


async def _ask(task: WriterTask, open_channel: OpenChannel) -> dict[str, Any]:
    """Have a process look at the file, and mend it; never raises for what it finds."""
    try:
        reader, writer = await asyncio.open_connection(sock=await open_channel(), limit=1 << 22)
    except DaqError as error:
        return {"failed": {"reason": str(error)}}
    try:
        writer.write(task.to_json().encode() + b"\n")
        async with asyncio.timeout(LOOK_S):
            await reader.readline()  # its pid
            answer: dict[str, Any] = json.loads(await reader.readline())
    except (TimeoutError, OSError, ValueError):
        return {"failed": {"reason": f"{task.output_file} could not be looked at: no answer"}}
    else:
        return answer
    finally:
        writer.close()


def _acquisition(begun: Begun, answer: dict[str, Any]) -> Acquisition:
    end = answer.get("end")
    if end is not None and end["run_id"] != str(begun.request.run_id):
        end = None  # a file of another run: ours was never made
    n_images = end["n_images"] if end is not None else 0
    finished = end is not None and end["state"] == AcquisitionState.FINISHED
    found = answer.get("repaired") or answer["failed"]["reason"]
    failed = f"{INTERRUPTED}." if end is not None else f"{INTERRUPTED}; {found}"
    if not finished:
        log.warning("%s: %s (%s)", begun.request.output_file, INTERRUPTED, found)
    return Acquisition(
        state=AcquisitionState.FINISHED if finished else AcquisitionState.FAILED,
        message=end["message"] if finished and end is not None else failed,
        request=begun.request,
        n_write_requested=n_images,
        n_write_completed=n_images,
        start_time=begun.start_time,
        stop_time=time.time(),
        losses=Losses(**end["losses"]) if end is not None and end["losses"] is not None else None,
    )
