"""A detector that is armed again and again, and a receiver that reads its ports, by an injected clock.

Packets arrive at sockets at known times; threads take turns by dice, each reading its own ports, as
``daq_core.receiving.loop`` does. No sockets, no sleeping: a second of pause costs nothing.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daq_core.config import DaqConfig
from daq_core.ring.ring import COMPLETE, SKIPPED
from daq_core.ring.words import Word
from tests.assembly.assembler import BATCH, Assembler
from tests.oracle.packets import datagram, packet_numbers

MS = 10**6
ROWS = 8
N_PACKETS = 2  # of a port in an image
PERIOD = 2 * MS
SKEW = MS // 5  # between ports


@dataclass(frozen=True)
class Packet:
    """What arrives at a port, and the burst it was sent in."""

    time: int
    port: int
    frame: int
    nth: int
    burst: int


@dataclass
class Taken:
    """An image of the run: its number, the bursts whose pixels are in it, and how many packets it lacks."""

    frame: int
    bursts: set[int]
    n_missing: int


def bursts(
    n_images: int, n_bursts: int, gap: int, n_ports: int, *, first: int = 1, period: int = PERIOD
) -> list[Packet]:
    """Return the packets of bursts whose numbers begin anew each time, `gap` ns apart."""
    sent, time = [], 1000 * MS
    for burst in range(n_bursts):
        for i in range(n_images):
            for port in range(n_ports):
                for nth in range(N_PACKETS):
                    at = time + port * SKEW // n_ports + nth * 1000
                    sent.append(Packet(at, port, first + i, nth, burst))
            time += period
        time += gap - period
    return sent


@dataclass
class BurstBench:
    """Modules of 8 rows, 2 packets each; every pixel of a packet is the number of its burst, plus 1."""

    n_ports: int
    n_threads: int = 1
    seed: int = 0
    n_slots: int = 128
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positions = {str(m): [0, ROWS * m, 1023, ROWS * m + ROWS - 1] for m in range(self.n_ports)}
        values: dict[str, Any] = {
            "detector_name": "bursts",
            "detector_type": "jungfrau",
            "bit_depth": 16,
            "image_pixel_height": ROWS * self.n_ports,
            "image_pixel_width": 1024,
            "n_modules": self.n_ports,
            "start_udp_port": 50000,
            "writer_user_id": 0,
            "module_positions": positions,
        }
        self.assembler = Assembler(DaqConfig.parse(values | self.settings), self.n_slots)
        self.words = self.assembler.words
        self.taken: list[Taken] = []
        self._seen = 0
        self._dice = random.Random(self.seed)
        self._numbers = packet_numbers("jungfrau", 16, (0, 0, 1023, ROWS - 1))
        self._payloads: dict[int, bytes] = {}

    def run(self, packets: Iterable[Packet], *, still: Iterable[tuple[int, int]] = ()) -> None:
        """Take a run of these packets; `still`: times from and until which the receiver stands still."""
        self.assembler.arm()
        self.receive(packets, still=still)

    def receive(self, packets: Iterable[Packet], *, still: Iterable[tuple[int, int]] = ()) -> None:
        """Receive all, and wait until nothing is open any more."""
        queues: list[deque[Packet]] = [deque() for _ in range(self.n_ports)]
        coming = sorted(packets, key=lambda packet: packet.time)
        for packet in coming:
            queues[packet.port].append(packet)
        threads = [(0, me) for me in range(self.n_threads)]  # when each takes its next turn
        pauses, end = sorted(still), (coming[-1].time if coming else 0) + 700 * MS
        while threads:
            now, me = heapq.heappop(threads)
            for begin, until in pauses:
                now = until if begin <= now < until else now
            n_read = self._turn(queues, me, now)
            arrivals = [queue[0].time for queue in queues if queue]
            idle = min(arrivals, default=end) - MS  # nothing happens until then
            following = now + self._dice.randint(MS // 10, MS)
            if now < idle and not self._n_open() and not n_read:
                following = max(following, idle)
            if following <= end:
                heapq.heappush(threads, (following, me))

    def _n_open(self) -> int:
        return int(self.words[Word.OPENED] - self.words[Word.PUBLISHED])

    def _turn(self, queues: list[deque[Packet]], me: int, now: int) -> int:
        """Read each port of a thread once; returns the datagrams read."""
        n_read = 0
        for port in range(me, self.n_ports, self.n_threads):
            queue, batch = queues[port], []
            while queue and queue[0].time <= now and len(batch) < BATCH:
                batch.append(self._datagram(queue.popleft()))
            self.assembler.read(port, batch, now)
            n_read += len(batch)
        self.assembler.publish_ready(now)
        self._take()
        return n_read

    def _datagram(self, packet: Packet) -> bytes:
        payload = self._payloads.setdefault(
            packet.burst, np.full(4096, packet.burst + 1, np.uint16).tobytes()
        )
        return datagram(packet.frame, self._numbers[packet.nth], payload)

    def _take(self) -> None:
        """Note what was published, as the writer would take it, before its slot is another image's."""
        for sequence in range(self._seen, self.assembler.n_published):
            slot = self.assembler.slot(sequence)
            if slot.state != SKIPPED and sequence >= self.words[Word.RUN_FIRST]:
                assert (slot.state == COMPLETE) == (slot.n_missing == 0) == (slot.status == 0)
                shown = self.assembler.image(sequence)[::4, 0].tolist()  # a pixel of each packet
                self.taken.append(Taken(int(slot.frame), {n - 1 for n in shown if n}, int(slot.n_missing)))
        self._seen = self.assembler.n_published
        self.assembler.consume(self._seen)

    def frames(self) -> list[int]:
        return [image.frame for image in self.taken]
