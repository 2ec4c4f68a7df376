"""The fork server: everything loaded, no threads, so that receivers and writers start in milliseconds.

``daq_core.processes.forks`` starts it as ``python -m daq_core.fork_server`` and asks it for
processes; a start or a config change never waits for an interpreter, a compiler
or a kernel cache. Control itself has threads and a loop and must not be forked.

A request is one byte, which kind of process, with descriptors: of the channel
the process talks over, of the ring, and whatever else its kind needs. A process
ends by itself when its channel closes, and so does the server; nobody waits for
them but the kernel. What is sent to a whole group of processes is control's to answer.

A service is READY when its receiver listens. So the server can be asked as soon as
it has the kernels and what a receiver needs; it loads the rest when it has forked
the first, which opens its sockets and fills its ring meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from daq_core.kernels.progress import READY, Compiled
from daq_core.linux.text_outlet import OutletHandler, TextOutlet
from daq_core.linux.urgency import be_usual, hurry
from daq_core.processes.group_signals import leave_to_control

if TYPE_CHECKING:
    from daq_core.kernels.compiling import Loaded  # which loads a compiler

log = logging.getLogger("daq_core.fork_server")  # also as __main__

RECEIVER, WRITER, LOOK, MAPS = b"r", b"w", b"l", b"m"
NAMES = {RECEIVER: b"daq-receiver", WRITER: b"daq-writer", LOOK: b"daq-look", MAPS: b"daq-maps"}
"""As ps and top show them."""
PR_SET_NAME = 15  # prctl(2)
MAX_DESCRIPTORS = 4
AFRESH = "afresh"  # last argument of a fork server that has compiled: it does not do that again

Work = Callable[..., None]


def load_receiver() -> Work:
    """Load what a receiver does."""
    from daq_core.receiving.packets import run_receiver

    return run_receiver


def load_writer() -> Work:
    """Load what a writer does."""
    from daq_core.codecs.compressor import load_filters
    from daq_core.writing.writer import run_writer

    load_filters()
    return run_writer


def load_look() -> Work:
    """Load what looks at a folder."""
    from daq_core.control.folder import run_look

    return run_look


def load_maps() -> Work:
    """Load what reads maps of gain and pedestal."""
    import h5py  # noqa: F401 - what gain_maps reads with

    from daq_core.writing.gain_maps import run_maps

    return run_maps


KINDS: Mapping[bytes, Callable[[], Work]] = {
    RECEIVER: load_receiver,
    WRITER: load_writer,
    LOOK: load_look,
    MAPS: load_maps,
}


def load_all_kernels(tell: Callable[[int, int], None]) -> Loaded:
    """Load the kernels of all processes, or compile them: that takes long, and a run needs them.

    `tell` hears how many are done and how many there are, when some have to be compiled.
    """
    from daq_core.kernels.compiling import load_kernels

    return load_kernels(tell)


def load_rest() -> None:
    """Load what no receiver of packets needs."""
    import daq_core.receiving.streams  # noqa: F401 - of cameras that send messages

    for load in KINDS.values():
        load()


def serve(requests: socket.socket) -> None:
    """Fork a process for each request until nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    if not _fork_next(requests):
        return
    load_rest()
    hurry()  # not before: the first receiver is waited for more than what we load meanwhile
    while _fork_next(requests):
        pass


def _fork_next(requests: socket.socket) -> bool:
    """Wait for a request and fork its process; False when there will be no more."""
    kind, descriptors, _, _ = socket.recv_fds(requests, 1, MAX_DESCRIPTORS)
    if not kind:
        return False
    work = KINDS[kind]()  # loaded already, but for the first
    gc.freeze()  # a process does not look for garbage in what is loaded, which would copy its pages
    if os.fork() == 0:
        gc.enable()
        requests.close()
        _name(NAMES[kind])
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


def _name(name: bytes) -> None:
    """Give this process the name that ps and top show."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def _say_what_is_new(loaded: Loaded) -> None:
    for old in loaded.removed:
        log.info("%s: kernels of another version, which nobody uses, are removed", old)
    if loaded.trouble:
        log.warning(
            "compiled kernels cannot be kept (%s), so each start compiles them anew; set XDG_CACHE_HOME "
            "to a folder that this user may write in",
            loaded.trouble,
        )


def _begin_afresh(requests: socket.socket) -> NoReturn:
    """Load what was just compiled in a new program in our place: compiling leaves 400 MB that are never used.

    Every process that is forked would have them, too; in a small container there is no room for that.
    """
    requests.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-m", "daq_core.fork_server", *sys.argv[1:], AFRESH])


def main() -> int:
    """Run as the fork server; descriptor of its request socket and level of its log are the arguments."""
    leave_to_control()  # which ends us, by closing the socket
    sys.stderr = outlet = TextOutlet.instead_of(sys.stderr)
    handler = OutletHandler(outlet, logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    resource.setrlimit(
        resource.RLIMIT_RTTIME, (hard, hard)
    )  # control's own is shorter: ioc.service.precedence
    _name(b"daq-forks")
    gc.disable()  # what is loaded stays: looking for garbage in it takes a seventh of the time
    with socket.socket(fileno=int(sys.argv[1])) as requests, contextlib.suppress(BrokenPipeError):
        loaded = load_all_kernels(lambda n_done, n_all: requests.sendall(Compiled(n_done, n_all).to_bytes()))
        _say_what_is_new(loaded)
        if loaded.n_compiled and not loaded.trouble and AFRESH not in sys.argv:
            outlet.drain()
            _begin_afresh(requests)
        requests.sendall(READY)
        serve(requests)
    return 0  # also when control has gone meanwhile


if __name__ == "__main__":
    sys.exit(main())
