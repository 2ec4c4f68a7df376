"""The compiled assembly of one small module, for single facts: packets in, frames of images out."""

from __future__ import annotations

import hashlib
from typing import Any

from daq_core.config import DaqConfig
from tests.assembly.assembler import Assembler
from tests.oracle.packets import datagram, packet_numbers

SECOND = 10**9
N_SLOTS = 8


def sent(config: DaqConfig, frame: int, module: int, nth: int, edition: int = 0) -> bytes:
    """Return the n-th packet of a module in a frame; the edition changes its pixels."""
    number = packet_numbers("jungfrau", 16, config.module_positions[module])[nth]
    seed = f"{frame} {module} {nth} {edition}".encode()
    return datagram(frame, number, hashlib.shake_128(seed).digest(8192), bunch_id=frame.to_bytes(8, "little"))


class Bench:
    """One module of 8 rows: an image has the packets 0 and 1."""

    def __init__(self, *, n_slots: int = N_SLOTS, id_source: str = "frame", **settings: Any) -> None:
        values = {
            "detector_name": "one",
            "detector_type": "jungfrau",
            "bit_depth": 16,
            "image_pixel_height": 8,
            "image_pixel_width": 1024,
            "n_modules": 1,
            "start_udp_port": 50000,
            "writer_user_id": 0,
            "module_positions": {"0": [0, 0, 1023, 7]},
        }
        self.config = DaqConfig.parse(values | settings)
        self.assembler = Assembler(self.config, n_slots, id_source=id_source)
        self.words = self.assembler.words

    def receive(self, frame: int, *packets: int, now: float = 0.0) -> None:
        """Let packets of a frame arrive, both when none is named, and let the loop turn."""
        datagrams = [sent(self.config, frame, 0, nth) for nth in packets or (0, 1)]
        self.assembler.receive(0, datagrams, int(now * SECOND))
        self.assembler.publish_ready(int(now * SECOND))

    def turn(self, now: float) -> None:
        self.assembler.publish_ready(int(now * SECOND))

    def published(self) -> list[int]:
        return [int(self.assembler.slot(s).frame) for s in range(self.assembler.n_published)]

    def in_run(self) -> list[int]:
        return [int(self.assembler.slot(s).frame) for s in self.assembler.run_images()]
