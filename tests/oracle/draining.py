"""When a run may end, in plain Python: each thread has read what was in its sockets when it was told."""

from __future__ import annotations

from collections.abc import Sequence

OVERHEAD = 512  # bytes that the kernel counts for a datagram at least, besides its own


class ReferenceThread:
    """One receive thread and the reads from its sockets since it saw the last order."""

    def __init__(self, rooms: Sequence[int]) -> None:
        self.rooms = rooms
        self.order = 0
        self.drained_for = 0  # the last order after which all sockets were drained
        self.reads: list[list[tuple[int, list[int]]]] = []

    def see(self, order: int) -> None:
        if order != self.order:
            self.order = order
            self.reads = [[] for _ in self.rooms]

    def read(self, socket: int, most: int, lengths: list[int]) -> None:
        """Say that a call that could have brought `most` datagrams brought these."""
        self.reads[socket].append((most, lengths))

    def end_turn(self) -> None:
        if all(map(self._is_drained, range(len(self.rooms)))):
            self.drained_for = self.order

    def _is_drained(self, socket: int) -> bool:
        came_short = any(len(lengths) < most for most, lengths in self.reads[socket])
        n_bytes = sum(length + OVERHEAD for _, lengths in self.reads[socket] for length in lengths)
        return came_short or n_bytes >= self.rooms[socket]
