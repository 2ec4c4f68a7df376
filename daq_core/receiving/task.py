"""What a receiver process is told, and what it says then; see ``daq_core.receiving.packets``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daq_core.processes.lines import Vocabulary


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


@dataclass(frozen=True)
class Listening:
    """Its sockets are open."""


@dataclass(frozen=True)
class NotListening:
    """It ends, because it cannot listen."""

    reason: str


TO_RECEIVER = Vocabulary(ReceiverTask)
FROM_RECEIVER = Vocabulary(Listening, NotListening)
