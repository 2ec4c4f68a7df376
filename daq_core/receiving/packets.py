"""The receiver process: drains the UDP ports into the image ring, and nothing else.

Forked by ``daq_core.fork_server`` for ``daq_core.pipeline.pipeline``. It opens the sockets,
prefaults the ring, says that it listens, and then lives in the compiled loop of
``daq_core.receiving.loop``, in one thread or several (see ``daq_core.assembling.gate``). Its
Python threads only report what the kernel dropped and what waits in the sockets,
four times a second, and end everything when the channel closes, which is how the
death of its parent reaches it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import numpy as np

from daq_core.assembling.arms import forget_arms
from daq_core.assembling.gate import new_crew
from daq_core.assembling.local import Local
from daq_core.assembling.placing import kernels_of
from daq_core.assembling.signatures import Assembly, Batch
from daq_core.config import DaqConfig
from daq_core.detectors import Layout, is_stream
from daq_core.errors import DaqError
from daq_core.kernels.loading import load_kernels
from daq_core.linux.sockets import (
    BUFFER_BYTES,
    DatagramBatch,
    buffer_size,
    close_all,
    memory_use,
    open_receiver,
)
from daq_core.processes.lines import Lines
from daq_core.receiving.loop import Sockets, receive
from daq_core.receiving.senders import Senders, allowed_senders, name_senders
from daq_core.receiving.socket_watch import SocketWatch
from daq_core.receiving.task import TO_RECEIVER, Listening, NotListening, ReceiverTask
from daq_core.ring.prefault import prefault
from daq_core.ring.ring import Ring
from daq_core.ring.words import Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from daq_core.receiving.streams import StreamReceiver

    NewStream = Callable[[DaqConfig, Layout], StreamReceiver]

log = logging.getLogger(__name__)

BATCH = 64  # datagrams a call: half a MiB of Jungfrau packets, which fits in L2
LOOK_EVERY_S = 0.25
ID_SOURCES = ("frame", "bunch", "bunch-int")


def batch_size(layout: Layout, window: int, n_threads: int = 1) -> int:
    """Return how many datagrams one call takes from a port: BATCH, or fewer where frames are small.

    Ports are read in turn. The first must not open so many images that the oldest leave the
    window before the last port completes them: so one turn is worth half the window at most.
    Threads may be two turns apart (see ``daq_core.assembling.gate``): then it is a quarter.
    """
    ports = layout.ports
    share = 2 if n_threads == 1 else 4
    n_packets = int((-(-ports["n_units"] // ports["units_per_packet"])).min())  # of a frame
    return max(1, min(BATCH, window // (share * layout.turns) * n_packets))


def new_local(config: DaqConfig, layout: Layout, id_source: str, n_slots: int) -> Any:
    """Return the receive loop's own memory for a config."""
    local = np.zeros(Local.COUNT, np.int64)
    local[Local.WINDOW] = config.window(n_slots)
    local[Local.TIMEOUT_NS] = int(config.image_timeout_s * 1e9)
    local[Local.UNITS] = layout.n_units
    local[Local.DROP_INCOMPLETE] = config.incomplete_images == "drop"
    local[Local.ID_SOURCE] = ID_SOURCES.index(id_source)
    return local


def forget_half_placed(ring: Ring) -> None:
    """Take for missing what a receiver that was killed had marked in open images: it may not be there."""
    n_slots = len(ring.slots)
    for sequence in range(int(ring.words[Word.PUBLISHED]), int(ring.words[Word.OPENED])):
        slot = sequence % n_slots
        if ring.placed[slot] != ring.slots["n_received"][slot]:
            ring.marks[slot] = 0
            ring.slots["n_received"][slot] = ring.placed[slot] = 0


class Receiver:
    """Sockets, ring and the compiled loop of one config."""

    def __init__(self, task: ReceiverTask, ring_descriptor: int, new_stream: NewStream) -> None:
        """Open everything; `new_stream` receives instead of the sockets where messages come, not packets."""
        self.config = DaqConfig.parse(task.config)
        self.layout = self.config.layout
        self.ring: Ring = self.layout.ring_shape(task.n_slots).attach(ring_descriptor)
        self.local = new_local(self.config, self.layout, task.id_source, task.n_slots)
        self.ring.words[Word.LEAVE] = 0
        self.ring.words[Word.HEARTBEAT] = 0  # what stands there is of another receiver
        self._rest_of_ring = prefault(self.ring)
        forget_arms(self.ring, self.local, self.layout)
        forget_half_placed(self.ring)
        self.allowed = allowed_senders(tuple(map(ip_network, task.udp_sources)))
        self.sockets: list[socket.socket] = []
        self.stream = new_stream(self.config, self.layout) if is_stream(self.config) else None
        try:
            for port in self.layout.udp_ports:
                self.sockets.append(open_receiver(task.udp_host, port, BUFFER_BYTES))
        except DaqError:
            close_all(self.sockets)
            raise
        self.n_threads = max(1, min(task.n_threads, len(self.sockets)))
        self._cpus = task.cpus
        self._crew = new_crew(self.n_threads)
        self.ring.words[Word.SOCKET_BUFFER] = min(map(buffer_size, self.sockets), default=0)
        self._watch = SocketWatch(self.ring, self.sockets)

    def run(self) -> None:
        """Receive until Word.LEAVE is set; blocks, without the GIL."""
        if self.stream is not None:
            self.stream.receive(Assembly(self.ring, self.local))
            return
        others = [
            threading.Thread(target=self._receive_packets, args=(k,), name=f"receive-{k}")
            for k in range(1, self.n_threads)
        ]
        for thread in others:
            thread.start()
        self._receive_packets(0)
        for thread in others:
            thread.join()

    def _receive_packets(self, me: int) -> None:
        """Receive from every n-th port, as one of n threads."""
        if self._cpus:
            os.sched_setaffinity(0, {self._cpus[me % len(self._cpus)]})
        ports = np.arange(me, len(self.sockets), self.n_threads)
        descriptors = np.array([self.sockets[port].fileno() for port in ports], np.int32)
        waiting = np.zeros((len(descriptors), 2), np.int32)  # struct pollfd: fd, events | revents << 16
        waiting[:, 0] = descriptors
        waiting[:, 1] = 1  # POLLIN
        n_datagrams = batch_size(self.layout, int(self.local[Local.WINDOW]), self.n_threads)
        batch = DatagramBatch(n_datagrams, self.layout.datagram_bytes)
        sockets = Sockets(
            descriptors,
            ports,
            waiting.view(np.uint64)[:, 0].copy(),
            np.array([memory_use(self.sockets[port])[1] for port in ports], np.int64),
            np.zeros(len(ports), np.int64),
        )
        receive(
            *kernels_of(self.config),
            sockets,
            Batch(batch.datagrams, batch.stride, batch.messages, np.zeros((n_datagrams, 2), np.int64)),
            self.layout.ports,
            Assembly(self.ring, self.local),
            Senders(name_senders(batch.messages, wanted=len(self.allowed) > 0), self.allowed),
            np.zeros(2, np.int64),
            self._crew,
            me,
        )

    def fill_ring(self) -> None:
        """Let the rest of the ring have its pages; whoever starts a thread meanwhile waits long."""
        self._rest_of_ring.start()

    def look_at_sockets(self) -> None:
        self._watch.look()

    def leave(self) -> None:
        """Let :meth:`run` return, in all its threads."""
        self.ring.words[Word.LEAVE] = 1

    def close(self) -> None:
        close_all(self.sockets)
        if self.stream is not None:
            self.stream.close()


def run_receiver(channel: socket.socket, ring_descriptor: int, *, new_stream: NewStream) -> None:
    """Receive until the channel closes, in a process of its own."""
    control = Lines(channel, TO_RECEIVER)
    control.introduce()
    load_kernels()  # of the fork server: done already
    task = control.hear(None)
    if task is None:
        return
    try:
        receiver = Receiver(task, ring_descriptor, new_stream)
    except DaqError as error:
        control.tell(NotListening(str(error)))
        return
    loop = threading.Thread(target=receiver.run, name="receive")
    loop.start()
    control.tell(Listening())
    receiver.fill_ring()
    over = threading.Event()
    watch = threading.Thread(target=_watch_sockets, args=(receiver, over))
    watch.start()
    control.wait_for_end()
    receiver.leave()
    over.set()
    loop.join()
    watch.join()  # the sockets are closed next
    receiver.look_at_sockets()
    receiver.close()


def _watch_sockets(receiver: Receiver, over: threading.Event) -> None:
    while not over.wait(LOOK_EVERY_S):
        receiver.look_at_sockets()
