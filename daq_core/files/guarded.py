"""Work that a library may never finish, or die of, in a child process with a deadline.

HDF5 can hang, crash or ask for more memory than there is when a file is damaged in the right
place. So what opens such a file is a child: it is killed at the deadline, and with its parent.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from daq_core.errors import DaqError
from daq_core.linux.libc import end_with

Result = TypeVar("Result")
PIECE_BYTES = 1 << 16


class NotDone(DaqError, RuntimeError):
    """The child did not do its work: it was ended at its deadline, or died; the text says which."""


def guarded(work: Callable[[], Result], seconds: float, *, wanted_by: socket.socket | None = None) -> Result:
    """Do `work` in a child of this process, and return or raise what it does.

    Parameters
    ----------
    work : without effects on this process's memory; its result can be pickled
    seconds : how long it may take; then it is killed
    wanted_by : the channel to the process that wants it done; the work is killed when that closes

    Raises
    ------
    NotDone
        It was killed, or crashed.
    """
    parent = os.getpid()
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:  # as in what the fork server forks: the kernel would take the child away before we ask of it
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(work, writing, parent)
    os.close(writing)
    try:
        said = _hear(reading, seconds, wanted_by)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # of one that has ended and nobody has waited for, it does nothing
        _, status = os.waitpid(pid, 0)
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if said is None:
        raise NotDone(f"it was not done within {seconds:g} s, and ended")
    try:
        is_done, outcome = pickle.loads(said)
    except (EOFError, pickle.UnpicklingError):
        raise NotDone(f"the process that did it died ({_end_of(status)})") from None
    if not is_done:
        raise outcome
    result: Result = outcome
    return result


def _live(work: Callable[[], Any], writing: int, parent: int) -> NoReturn:
    """Be the child."""
    try:
        if end_with(parent):  # else it had died before it could be asked for
            try:
                said = pickle.dumps((True, work()))
            except Exception as error:
                said = _pickled(error)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(said)
    finally:
        os._exit(0)  # no clean-up of libraries: they are the parent's as well


def _pickled(error: Exception) -> bytes:
    try:
        said = pickle.dumps((False, error))
        pickle.loads(said)
    except Exception:
        said = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return said


def _hear(reading: int, seconds: float, wanted_by: socket.socket | None) -> bytes | None:
    """Return all that the child says until it ends; None when it takes too long or nobody wants it."""
    deadline, said = time.monotonic() + seconds, b""
    watched: list[Any] = [reading] if wanted_by is None else [reading, wanted_by]
    while True:
        ready = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]
        if reading in ready:
            piece = os.read(reading, PIECE_BYTES)
            if not piece:
                return said
            said += piece
        elif not ready or (wanted_by is not None and not _is_open(wanted_by)):
            return None
        elif wanted_by in watched:  # it says something, which is for later
            watched.remove(wanted_by)


def _is_open(channel: socket.socket) -> bool:
    try:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _end_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"
