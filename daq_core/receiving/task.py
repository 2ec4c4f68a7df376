"""What a receiver process is told; what is said then is in ``daq_core.receiving.packets``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ReceiverTask:
    """What a receiver is told: the config, where to listen, and the ring."""

    config: dict[str, Any]
    udp_host: str
    id_source: str
    n_slots: int
    udp_sources: tuple[str, ...] = ()  # networks of the senders that are taken; none: all
    n_threads: int = 1  # at most one for each port
    cpus: tuple[int, ...] = ()  # which of them each thread is kept on, in turn; none: anywhere

    def to_json(self) -> str:
        return json.dumps(asdict(self))
