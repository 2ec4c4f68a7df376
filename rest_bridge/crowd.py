"""Who must go when too many are connected to REST: whoever has been idle longest, never the new one.

A client that connects and says nothing, or little and slowly, holds a place; many of them hold
all. If the new one were turned away, they would keep everybody out, Stop included.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypeVar

from daq_core.linux.network import Network, is_in, parse_networks

log = logging.getLogger(__name__)

LOOPBACK = parse_networks("127.0.0.0/8,::1")
A_LINE_EVERY_S = 60.0


class Visitor(Protocol):
    """A connection, as far as its place is concerned.

    address    : of the client
    idle_since : monotonic seconds; None: we are at work for it
    """

    @property
    def address(self) -> str: ...

    @property
    def idle_since(self) -> float | None: ...


Some = TypeVar("Some", bound=Visitor)


@dataclass
class Crowd:
    """How many may be connected, and who gives way.

    total         : connections at once; a client holds one or two
    per_address   : of one address elsewhere; many clients may stand behind one gateway
    kept          : places that nobody elsewhere can take: for clients on this machine, which `here` tells
    """

    total: int = 200
    per_address: int = 50
    kept: int = 20
    here: tuple[Network, ...] = LOOPBACK
    _n_untold: int = field(default=0, init=False)
    _told_at_s: float = field(default=float("-inf"), init=False)

    def gives_way(self, new: Some, there: Iterable[Some]) -> Some | None:
        """Return who must go for a new one: itself when all others are at work; None when there is room."""
        present = list(there)
        here = [visitor for visitor in present if _is_in(visitor.address, self.here)]
        elsewhere = [visitor for visitor in present if visitor not in here]
        if _is_in(new.address, self.here):
            if len(present) < self.total:
                return None
            return self._longest_idle(present, new)
        same = [visitor for visitor in elsewhere if visitor.address == new.address]
        if len(same) >= self.per_address:
            return self._longest_idle(same, new)
        if len(elsewhere) >= self.total - self.kept:
            return self._longest_idle(elsewhere, new)
        if len(present) >= self.total:
            return self._longest_idle(present if len(here) > self.kept else elsewhere, new)
        return None

    def _longest_idle(self, among: list[Some], new: Some) -> Some:
        idle = [(visitor.idle_since, visitor) for visitor in among if visitor.idle_since is not None]
        gone = min(idle, key=lambda pair: pair[0])[1] if idle else new
        self._tell(gone)
        return gone

    def _tell(self, gone: Visitor) -> None:
        """Say that it is crowded, once a minute."""
        self._n_untold += 1
        now_s = time.monotonic()
        if now_s - self._told_at_s >= A_LINE_EVERY_S:
            log.warning(
                "REST is full: %d connections, each idle longest, gave way to new ones; the last was of %s",
                self._n_untold,
                gone.address,
            )
            self._n_untold, self._told_at_s = 0, now_s


_is_in = lru_cache(maxsize=1024)(is_in)  # asked of all connections for each new one
