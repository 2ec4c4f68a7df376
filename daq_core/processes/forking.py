"""Forks a process for each request that comes over a socket, and lets it do its kind's work.

A request is one byte, which kind of process (``daq_core.processes.kinds``), with descriptors: of
the channel the process talks over, of the ring, and whatever else its kind needs. A process
ends by itself when its channel closes, and so does the server; nobody waits for
them but the kernel. Which work a kind does, the caller's table says.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping

from daq_core.linux.libc import be_named
from daq_core.linux.urgency import be_usual, hurry
from daq_core.processes.kinds import NAMES, RECEIVER

log = logging.getLogger(__name__)

MAX_DESCRIPTORS = 4

Work = Callable[..., None]
"""What a process does, with its channel and its other descriptors."""
Kinds = Mapping[bytes, Callable[[], Work]]
"""Kind of process → what loads its work, and returns it."""


def serve_requests(requests: socket.socket, kinds: Kinds, load_rest: Callable[[], None]) -> None:
    """Fork a process for each request until nobody can ask any more.

    `load_rest` is called when the first is forked, which works meanwhile.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    if not _fork_next(requests, kinds):
        return
    load_rest()
    hurry()  # not before: the first receiver is waited for more than what we load meanwhile
    while _fork_next(requests, kinds):
        pass


def _fork_next(requests: socket.socket, kinds: Kinds) -> bool:
    """Wait for a request and fork its process; False when there will be no more."""
    kind, descriptors, _, _ = socket.recv_fds(requests, 1, MAX_DESCRIPTORS)
    if not kind:
        return False
    work = kinds[kind]()  # loaded already, but for the first
    gc.freeze()  # a process does not look for garbage in what is loaded, which would copy its pages
    if os.fork() == 0:
        gc.enable()
        requests.close()
        be_named(NAMES[kind])
        if kind == RECEIVER:
            be_usual()
        _live(work, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def _live(work: Work, descriptors: list[int]) -> None:
    """Do one piece of work in a freshly forked process, and end it."""
    status = 1
    try:
        with socket.socket(fileno=descriptors[0]) as channel:
            work(channel, *descriptors[1:])
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # control is gone, so there is nobody to work for
    except Exception:
        log.exception("a forked process failed")
    finally:
        logging.shutdown()
        os._exit(status)  # no clean-up of libraries: HDF5's could raise what close has reported already
