"""A look at an output folder before any run: is it there, may its user write in it, can it be made?

A file system may hang, and the answer depends on the user: so each look is a
process of its own, forked by ``daq_core.fork_server``, that becomes the user first and answers one question.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from daq_core.control.task import FolderFound, FolderTask
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.files.output import check_folder
from daq_core.files.roots import entered, opened_folder
from daq_core.linux.user import become, find_owner
from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import LOOK
from daq_core.processes.question import answer, ask

TIMEOUT_S = 4.0  # for a file system to say whether it has the folder


async def look(forks: ForkServer, task: FolderTask) -> str:
    """Return why no file can be written into a folder, "" when one can; makes what it may make.

    Raises
    ------
    Unavailable
        The file system did not answer, or no process could be started.
    """
    try:
        found = await ask(forks, LOOK, task, FolderFound, TIMEOUT_S)
    except TimeoutError:
        raise Unavailable(
            f"The file system of {task.folder} did not answer within {TIMEOUT_S:.0f} s."
        ) from None
    return found.trouble


def run_look(channel: socket.socket) -> None:
    """Do one look, in a process of its own that is forked for it."""
    answer(channel, FolderTask, lambda task: FolderFound(_trouble(task)))


def _trouble(task: FolderTask) -> str:
    try:
        become(find_owner(task.writer_user_id, writer_group=task.writer_group, min_user_id=task.min_user_id))
        make_folders(task.folder, task.may_make, task.output_roots)
        check_folder(task.folder, task.output_roots)
    except InvalidRequest as refused:
        return str(refused)
    except OSError as error:
        return f"Output file folder {task.folder} cannot be made: {error.strerror}."
    return ""


def make_folders(folder: str, may_make: int, roots: Sequence[str]) -> None:
    """Make the missing end of a path, unless more than `may_make` folders of it are missing.

    Raises
    ------
    InvalidRequest
        It would be outside of the allowed roots.
    OSError
        It cannot be made.
    """
    missing: list[str] = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder.rstrip("/"))
    if not missing or len(missing) > may_make:
        return
    with opened_folder(folder, roots) as existing:
        inner = os.dup(existing)
        try:
            for name in (os.path.basename(path.rstrip("/")) for path in reversed(missing)):
                os.mkdir(name, 0o775, dir_fd=inner)
                inner = entered(inner, name)
        finally:
            os.close(inner)
