"""Starts, watches and ends the receiver process; forks the writers' processes.

What happens in the receiver comes back as two things: counters in the ring, and
calls of what the pipeline was given (``receiver_lost``, ``receiver_up``). All
processes end by themselves when this one dies, because their channels close.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.linux.memory import present_memory, shown_bytes
from daq_core.linux.network import Network
from daq_core.pipeline.ring_size import choose_ring
from daq_core.processes.forks import ForkServer
from daq_core.processes.kinds import RECEIVER, WRITER
from daq_core.receiving.handle import ReceiverGone, ReceiverProcess
from daq_core.receiving.task import ReceiverTask
from daq_core.ring.ring import COMPLETE, INCOMPLETE, RingShape
from daq_core.ring.words import Word, carry_over
from daq_core.state.receive_threads import ReceiveThreads
from daq_core.writing.gain_maps import load_maps, remarks_on, same_maps

log = logging.getLogger(__name__)

HUNG_S = 10  # a receive loop that has not turned for so long is replaced
SPARE_BYTES = 2**20  # of a ring, that need not be there: what the kernel says of the sockets comes later
RESTART_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Former:
    """What a pipeline ran with, to go back to when another config does not come up."""

    config: DaqConfig
    shape: RingShape
    maps: int | None  # a descriptor of its own

    def forget(self) -> None:
        close_maps(self.maps)


class Pipeline:
    """Receiver process, image ring and fork server of one config."""

    def __init__(
        self,
        config: DaqConfig,
        *,
        udp_host: str,
        udp_sources: Sequence[Network],
        receive_threads: ReceiveThreads,
        id_source: Literal["frame", "bunch", "bunch-int"],
        receiver_lost: Callable[[str], None],
        receiver_up: Callable[[], None],
        forks: ForkServer,
    ) -> None:
        self._udp_host = udp_host
        self._udp_sources = tuple(map(str, udp_sources))
        self._receive_threads = receive_threads
        self._id_source = id_source
        self._receiver_lost = receiver_lost
        self._receiver_up = receiver_up
        self._receiver: ReceiverProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self.forks = forks
        self.n_restarts = 0  # receivers started again, and writers lost
        self._maps: int | None = None  # descriptor of what conversion needs
        self._lay_out(config, carry=None)

    def _lay_out(self, config: DaqConfig, carry: Any, shape: RingShape | None = None) -> None:
        """Make the ring for a config, of a known shape or one that fits; what was counted is carried over."""
        if shape is None:
            returned = 0 if carry is None else self.resident_bytes
            shape = choose_ring(config, present_memory(), returned_bytes=returned)
        try:
            ring_descriptor = shape.create()
            ring = shape.attach(ring_descriptor)
        except OSError as error:
            raise Unavailable(
                f"No memory for an image ring of {shown_bytes(shape.total_bytes)} "
                f"({error.strerror}); set ram_buffer_gb in the config."
            ) from None
        self.config, self.layout = config, config.layout
        self.shape: RingShape = shape
        self.ring_descriptor = ring_descriptor
        self.ring = ring
        self.words = self.ring.words
        if carry is not None:
            carry_over(self.words, carry)

    async def launch(self) -> None:
        """Have the fork server ready; Unavailable when it cannot be started."""
        await self.forks.start()

    async def start(self) -> None:
        """Start to receive; Unavailable or InvalidConfig says why that is not possible with this config."""
        self._maps = await self.load_maps(self.config)
        await self._start_receiver()
        self._watch = asyncio.create_task(self._keep_receiver())

    async def end(self) -> None:
        """End both processes; a writer that is closing its file goes on by itself."""
        await self._stop_watching()
        await self._end_receiver()
        await self.forks.end()
        self._close_memory()

    async def load_maps(self, config: DaqConfig) -> int | None:
        """Read what a config's conversion needs into shared memory; None where nothing is converted.

        Raises
        ------
        InvalidConfig
            A gain or pedestal file is unreadable, has the wrong shape, or does not answer in time.
        """
        return await load_maps(self.forks, config) if config.layout.is_converted else None

    @property
    def maps_warning(self) -> str:
        """What is worth a warning of the gain and pedestal maps that are used."""
        return remarks_on(self._maps, self.config) if self._maps is not None else ""

    async def has_maps(self, maps: int | None) -> bool:
        """Tell whether the present conversion needs exactly what :meth:`load_maps` has read once more."""
        return await asyncio.to_thread(same_maps, self._maps, maps)

    def remember(self) -> Former:
        """Return what it runs with now; the caller has to forget it some time."""
        return Former(self.config, self.shape, None if self._maps is None else os.dup(self._maps))

    async def take_up(self, config: DaqConfig, maps: int | None, shape: RingShape | None = None) -> None:
        """End the receiver, and replace the ring by that of another config; `maps` are its :meth:`load_maps`.

        Not to be cancelled. :meth:`restart` is what comes next; without a receiver nothing is received.

        Raises
        ------
        Unavailable
            There is no memory for it. The ring is as it was, without a receiver.
        """
        await self._stop_watching()
        await self._end_receiver()
        former, former_maps = self.ring_descriptor, self._maps
        try:
            self._lay_out(config, carry=self.words, shape=shape)
        except BaseException:
            close_maps(maps)
            raise
        self._maps = maps
        close_maps(former_maps)
        await asyncio.to_thread(os.close, former)  # its memory is given back then: 0.1 s a GiB

    async def restart(self) -> None:
        """Start a receiver for what was taken up; when it cannot start, it is tried again and again."""
        try:
            await self._start_receiver()
        finally:
            self._watch = asyncio.create_task(self._keep_receiver())

    async def go_back(self, former: Former) -> None:
        """Run again what ran before; takes what was remembered."""
        await self.take_up(former.config, former.maps, former.shape)
        await self.restart()

    @property
    def is_filled(self) -> bool:
        """Whether the ring has all its memory: no receiver will be killed for taking it any more."""
        return os.fstat(self.ring_descriptor).st_blocks * 512 >= self.shape.total_bytes - SPARE_BYTES

    async def open_channel(self) -> socket.socket:
        """Fork a writer and return our end of its channel."""
        maps = [] if self._maps is None else [self._maps]
        return await self.forks.fork(WRITER, self.ring_descriptor, *maps)

    # A run begins and ends in the ring by its epoch: odd while it is armed.

    @property
    def next_epoch(self) -> int:
        return int(self.words[Word.EPOCH]) + 1

    def arm(
        self,
        n_images: int,
        n_writers: int,
        *,
        by_valve: bool = False,
        start_id: int = 0,
        end_id: int | None = None,
    ) -> int:
        """Let the receiver keep images from now on, 0: until :meth:`disarm`; returns the epoch.

        Of a run by valve these are the images that the valve lets through (``daq_core.pipeline.valve``).
        """
        ids = self.words.view(np.uint64)
        ids[Word.START_ID], ids[Word.BEHIND_ID] = start_id, 0 if end_id is None else end_id + 1
        self.words[Word.N_IMAGES] = n_images
        self.words[Word.BY_VALVE] = by_valve
        self.words[Word.N_WRITERS] = n_writers
        self.words[Word.EPOCH] += 1
        return int(self.words[Word.EPOCH])

    def pass_over(self) -> int:
        """Let a run be over that was stopped before it began: nothing is kept for it; returns its epoch."""
        epoch = self.next_epoch
        self.words[Word.WRITER_DONE] = epoch
        self.words[Word.EPOCH] += 2
        return epoch

    def disarm(self) -> None:
        """Let the receiver end the run, if one is armed, when it has read what is in its sockets."""
        if self.words[Word.EPOCH] % 2 == 1:
            self.words[Word.EPOCH] += 1

    def release(self) -> None:
        """Tell the receiver that no writer needs the run's slots any more."""
        self.disarm()
        self.words[Word.WRITER_DONE] = self.words[Word.EPOCH] - 1

    @property
    def ids_in_ring(self) -> tuple[int, int] | None:
        """The lowest and the highest id of the finished images that the ring still has; None: it has none."""
        n_slots, slots = self.shape.n_slots, self.ring.slots
        published = int(self.words[Word.PUBLISHED])
        kept = range(max(0, int(self.words[Word.OPENED]) - n_slots), published)
        images = [slots[sequence % n_slots] for sequence in kept]
        ids = [int(image.image_id) for image in images if image.state in (COMPLETE, INCOMPLETE)]
        return (min(ids), max(ids)) if ids else None

    @property
    def resident_bytes(self) -> int:
        """Memory that the ring and the maps have by now; a ring is given its pages bit by bit."""
        kept = [self.ring_descriptor] if self._maps is None else [self.ring_descriptor, self._maps]
        return sum(os.fstat(descriptor).st_blocks * 512 for descriptor in kept)

    def _close_memory(self) -> None:
        os.close(self.ring_descriptor)
        close_maps(self._maps)
        self._maps = None

    async def _start_receiver(self) -> None:
        task = ReceiverTask(
            self.config.as_dict(),
            self._udp_host,
            self._id_source,
            self.shape.n_slots,
            self._udp_sources,
            self._receive_threads.number(),
            self._receive_threads.cpus,
        )
        try:
            self._receiver = await self._fork_receiver(task)
        except ReceiverGone:  # one that is killed, or whose fork server is, says nothing against a config
            self._receiver = await self._fork_receiver(task)
        log.info(
            "receiver %d listens; %s: %d, threads: %d, ring: %d images (%s)",
            self._receiver.pid,
            "UDP ports" if self.layout.udp_ports else "streams",
            len(self.layout.udp_ports) or len(self.config.stream_addresses),
            max(1, min(task.n_threads, len(self.layout.udp_ports))),
            self.shape.n_slots,
            shown_bytes(self.shape.total_bytes),
        )

    async def _fork_receiver(self, task: ReceiverTask) -> ReceiverProcess:
        channel = await self.forks.fork(RECEIVER, self.ring_descriptor)
        return await ReceiverProcess.start(channel, task)

    async def _keep_receiver(self) -> None:
        """Report the receiver's death and start another, with growing delays."""
        while True:
            if self._receiver is not None:
                reason = await self._end_of(self._receiver)
                log.error("receiver lost: %s", reason)
                self._receiver_lost(reason)
                await self._end_receiver()
            for attempt in itertools.count():
                await asyncio.sleep(RESTART_DELAYS_S[min(attempt, len(RESTART_DELAYS_S) - 1)])
                try:
                    await self._start_receiver()
                    break
                except OSError as error:  # Unavailable, or no descriptor left
                    log.error("receiver not restarted: %s", error)
                    self._receiver_lost(str(error))
            self.n_restarts += 1
            self._receiver_up()

    async def _end_of(self, receiver: ReceiverProcess) -> str:
        """Return how a receiver ended; one whose loop stands still is killed first."""
        ended = asyncio.ensure_future(receiver.wait())
        try:
            while not (await asyncio.wait({ended}, timeout=1.0))[0]:
                standing = asyncio.get_running_loop().time() - self.words[Word.HEARTBEAT] / 1e9
                if self.words[Word.HEARTBEAT] and standing > HUNG_S:
                    receiver.kill()
                    return f"process {receiver.pid} stood still for {standing:.0f} s and was killed"
        finally:
            ended.cancel()
        return f"process {receiver.pid} ended unexpectedly"

    async def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None

    async def _end_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await receiver.end()

    @property
    def receiver_pid(self) -> int | None:
        return self._receiver.pid if self._receiver is not None else None


def close_maps(descriptor: int | None) -> None:
    """Give back what :meth:`Pipeline.load_maps` made."""
    if descriptor is not None:
        os.close(descriptor)
