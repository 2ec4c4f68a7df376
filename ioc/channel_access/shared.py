"""What all clients of a server share: names, commands, and what is counted of the clients."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ioc.channel_access.names import Names
from ioc.commands.commands import Commands


@dataclass
class Counts:
    """What happened to clients since the start."""

    n_broken: int = 0  # clients that sent garbage
    n_dropped: int = 0  # updates, for slow clients
    n_stalled: int = 0  # clients that were disconnected because they had stopped reading
    n_updates: int = 0


@dataclass(frozen=True)
class Shared:
    """What a circuit and a search need of the server."""

    names: Names
    port: int  # of TCP, where the names are served
    commands: Commands
    report: Callable[[str, BaseException], None]  # (where, what): an error of ours, to be shown
    spawn: Callable[[Coroutine[Any, Any, None]], object]  # work that outlives the client who asked for it
    counts: Counts = field(default_factory=Counts)
