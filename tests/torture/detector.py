"""The detectors of torture, small ones, and how they send: in a thread, with faults, all noted."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from typing import Any

from daq_core.simulating.fault_stage import SentPacket
from daq_core.simulating.faults import Chaos
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK
from tests.processes.service import Service
from tests.system.evidence import Sent

NOBODY = 65534

JUNGFRAU: dict[str, Any] = {
    "detector_name": "JF",
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "n_modules": 2,
    "image_pixel_height": 34,
    "image_pixel_width": 1024,
    "start_udp_port": 0,
    "writer_user_id": NOBODY if os.geteuid() == 0 else -1,
    "module_positions": {"0": [0, 0, 1023, 15], "1": [1023, 33, 0, 18]},  # two rows between, one turned
    "ram_buffer_gb": 0.02,
    "incomplete_images": "write",
}
EIGER: dict[str, Any] = {
    "detector_type": "eiger",
    "bit_depth": 8,
    "image_pixel_height": 256,
    "image_pixel_width": 1030,
    "module_positions": {"0": [0, 0, 513, 255], "1": [1029, 255, 516, 0]},
}
GIGAFROST: dict[str, Any] = {
    "detector_type": "gigafrost",
    "bit_depth": 16,
    "n_modules": 8,
    "image_pixel_height": 152,  # 38 rows a link, in packets of 17, 17 and 4; those of 17 are padded
    "image_pixel_width": 504,
    "module_positions": {},
}
GIGAFROST_OTHER_ROWS = 19
"""Rows that std_daq's own simulators put into a packet of it."""
N_PORTS = 16
DETECTORS = (
    JUNGFRAU,
    JUNGFRAU | {"incomplete_images": "drop"},
    JUNGFRAU | EIGER,
    JUNGFRAU | {"compression": "bitshuffle-lz4"},
    JUNGFRAU | {"number_of_writers": 2},
    JUNGFRAU | {"number_of_writers": 3, "compression": "bitshuffle-zstd", "incomplete_images": "drop"},
    JUNGFRAU | EIGER | {"bit_depth": 4, "compression": "bitshuffle-lz4"},
    JUNGFRAU | GIGAFROST,
    JUNGFRAU | GIGAFROST | {"incomplete_images": "drop"},
    JUNGFRAU | GIGAFROST | {"n_udp_ports": 16},
    JUNGFRAU | GIGAFROST | {"number_of_writers": 2, "compression": "bitshuffle-lz4"},
)
"""From the same port on: two modules, the second turned by 180°, or eight links on 8 or 16 ports."""


class Detector:
    """A simulated detector with faults, sending in a thread; keeps everything that really went out."""

    def __init__(
        self,
        service: Service,
        chaos: Chaos,
        first_id: int,
        rows_per_packet: int | None = None,
        bit_depth: int | None = None,
    ) -> None:
        self.sent: list[Sent] = []
        self._n_timed = 0  # how many of them are known to be out
        self._first_id = first_id
        self._stop = threading.Event()
        config = service.config
        self.is_at_another_depth = config.detector_type == "eiger" and bit_depth not in (
            None,
            config.bit_depth,
        )
        self._simulator = Simulator(
            config.merge({"bit_depth": bit_depth}) if self.is_at_another_depth else config,
            host=LOOPBACK,
            chaos=chaos,
            tell=self._note,
            rows_per_packet=rows_per_packet if service.config.detector_type == "gigafrost" else None,
        )
        self._thread: threading.Thread | None = None

    def _note(self, packet: SentPacket) -> None:
        if packet.datagram is not None:
            is_foreign = "foreign" in packet.faults
            data = packet.datagram.tobytes()
            sent = Sent(packet.time_s, math.inf, packet.image_id, packet.port, is_foreign, data)
            self.sent.append(sent)

    def _note_time(self, n_images: int) -> None:
        """The packets of an image are out: the sender may have been kept waiting among them."""
        now = time.monotonic()
        for i in range(self._n_timed, len(self.sent)):
            self.sent[i] = self.sent[i]._replace(until_s=now)
        self._n_timed = len(self.sent)

    @property
    def faults(self) -> Counter[str]:
        assert self._simulator.chaos is not None
        return self._simulator.chaos.counts

    def begin(self, n_images: int, rate_hz: float) -> None:
        self._thread = threading.Thread(
            target=self._simulator.send,
            args=(n_images, rate_hz),
            kwargs={"first_id": self._first_id, "stop": self._stop, "progress": self._note_time},
        )
        self._thread.start()
        self._first_id += n_images

    def end(self) -> None:
        """Wait until everything is sent."""
        assert self._thread is not None
        self._thread.join()
