"""A receiver in this process whose loop has not begun: what it finds in its sockets is up to the test."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.kernels.loading import load_kernels
from daq_core.receiving.packets import Receiver
from daq_core.receiving.streams import StreamReceiver
from daq_core.receiving.task import ReceiverTask
from daq_core.ring.ring import SKIPPED
from daq_core.ring.words import Word
from ioc.program.ports import LOOPBACK

LIMIT_S = 30


class StillReceiver:
    """Sockets that listen, and a ring; the loop runs in ``with receiver.running():``."""

    def __init__(self, config: DaqConfig, n_slots: int, *, n_threads: int = 1) -> None:
        descriptor = layout_of(config).ring_shape(n_slots).create()
        task = ReceiverTask(config.as_dict(), LOOPBACK, "frame", n_slots, n_threads=n_threads)
        try:
            self._receiver = Receiver(task, descriptor, StreamReceiver)
        finally:
            os.close(descriptor)
        self.config = config
        self.sockets = self._receiver.sockets
        self.ring = self._receiver.ring
        self.words = self.ring.words

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        load_kernels()
        loop = threading.Thread(target=self._receiver.run)
        loop.start()
        try:
            yield
        finally:
            self._receiver.leave()
            loop.join(LIMIT_S)
            assert not loop.is_alive()

    def ask_for_run(self) -> None:
        self.words[Word.EPOCH] += 1
        assert self.words[Word.EPOCH] % 2 == 1

    def ask_for_end(self) -> None:
        self.words[Word.EPOCH] += 1
        assert self.words[Word.EPOCH] % 2 == 0

    def wait_for_end(self) -> None:
        self.wait_until(lambda: bool(self.words[Word.ACKNOWLEDGED] == self.words[Word.EPOCH]))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def images_of_the_run(self) -> dict[int, int]:
        """Return the frame number and the state of each, in their order."""
        slots = self.ring.slots[int(self.words[Word.RUN_FIRST]) : int(self.words[Word.RUN_END])]
        return {int(one.frame): int(one.state) for one in slots if one.state != SKIPPED}

    def close(self) -> None:
        self._receiver.close()
