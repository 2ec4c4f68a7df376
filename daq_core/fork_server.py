"""The fork server: everything loaded, no threads, so that receivers and writers start in milliseconds.

``daq_core.processes.forks`` starts it as ``python -m daq_core.fork_server`` and asks it for
processes; a start or a config change never waits for an interpreter, a compiler
or a kernel cache. Control itself has threads and a loop and must not be forked.

This file says what each kind of process does: it alone imports all rooms, each where its work is
loaded. How a process is asked for and forked is in ``daq_core.processes.forking``. What is sent to
a whole group of processes is control's to answer.

A service is READY when its receiver listens. So the server can be asked as soon as
it has the kernels and what a receiver needs; it loads the rest when it has forked
the first, which opens its sockets and fills its ring meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from daq_core.kernels.progress import READY, Compiled
from daq_core.linux.libc import be_named
from daq_core.linux.text_outlet import OutletHandler, TextOutlet
from daq_core.processes.forking import Kinds, Work, serve_requests
from daq_core.processes.group_signals import leave_to_control
from daq_core.processes.kinds import LOOK, MAPS, MEND, RECEIVER, WRITER

if TYPE_CHECKING:
    from daq_core.config import DaqConfig
    from daq_core.detectors import Layout
    from daq_core.kernels.loading import Loaded  # which loads a compiler
    from daq_core.receiving.streams import StreamReceiver

log = logging.getLogger("daq_core.fork_server")  # also as __main__

MOST_HELPERS = 2  # in compiling; a third would wait for what these compile
COMPILING_BYTES = 512 * 2**20  # of each process that does
AFRESH = "afresh"  # last argument of a fork server that has compiled: it does not do that again


def load_receiver() -> Work:
    """Load what a receiver does."""
    from daq_core.receiving.packets import run_receiver

    return partial(run_receiver, new_stream=_new_stream)


def _new_stream(config: DaqConfig, layout: Layout) -> StreamReceiver:
    """Load ZeroMQ, which receivers of packets need not wait for."""
    from daq_core.receiving.streams import StreamReceiver

    return StreamReceiver(config, layout)


def load_writer() -> Work:
    """Load what a writer does."""
    from daq_core.writing.writer import run_writer

    return run_writer


def load_mend() -> Work:
    """Load what mends a file."""
    from daq_core.writing.mending import run_mend

    return run_mend


def load_look() -> Work:
    """Load what looks at a folder."""
    from daq_core.control.folder import run_look

    return run_look


def load_maps() -> Work:
    """Load what reads maps of gain and pedestal."""
    from daq_core.writing.map_files import run_maps

    return run_maps


KINDS: Kinds = {
    RECEIVER: load_receiver,
    WRITER: load_writer,
    MEND: load_mend,
    LOOK: load_look,
    MAPS: load_maps,
}


def load_all_kernels(tell: Callable[[int, int], None]) -> Loaded:
    """Load the kernels of all processes, or compile them: that takes long, and a run needs them.

    `tell` hears how many are done and how many there are, when some have to be compiled.
    """
    import daq_core.codecs.compressor
    import daq_core.receiving.packets
    import daq_core.receiving.stream_assembly
    import daq_core.writing.conversion  # noqa: F401 - these four declare kernels
    from daq_core.kernels.loading import load_kernels

    return load_kernels(tell, _count_helpers)


def _count_helpers() -> int:
    """Return how many processes may help with compiling, by what is free of processors and memory."""
    from daq_core.linux.memory import present_memory

    n_by_memory = present_memory().free_bytes // COMPILING_BYTES - 1
    return max(0, min(len(os.sched_getaffinity(0)) - 1, n_by_memory, MOST_HELPERS))


def load_rest() -> None:
    """Load what no receiver of packets needs."""
    import daq_core.receiving.streams  # noqa: F401 - of cameras that send messages

    for load in KINDS.values():
        load()


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
    be_named(b"daq-forks")
    gc.disable()  # what is loaded stays: looking for garbage in it takes a seventh of the time
    with socket.socket(fileno=int(sys.argv[1])) as requests, contextlib.suppress(BrokenPipeError):
        loaded = load_all_kernels(lambda n_done, n_all: requests.sendall(Compiled(n_done, n_all).to_bytes()))
        _say_what_is_new(loaded)
        if loaded.n_compiled and not loaded.trouble and AFRESH not in sys.argv:
            outlet.drain()
            _begin_afresh(requests)
        requests.sendall(READY)
        serve_requests(requests, KINDS, load_rest)
    return 0  # also when control has gone meanwhile


if __name__ == "__main__":
    sys.exit(main())
