"""What waits for a listener that may be slow: bounded, and the newest wins.

A snapshot's listener must not wait, and what it makes of snapshots may be taken away by somebody who
has stopped reading: a Redis that is down, a client of Channel Access on a slow line.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

Item = TypeVar("Item")


class Feed(deque[Item]):
    """A queue for one listener, the oldest item at the left. Usage: ``n_dropped += feed.put(update, 50)``."""

    def put(self, item: Item, room: int) -> int:
        """Append an item to `room` - 1 others at most; returns how many were dropped for it, the oldest."""
        n_dropped = 0
        while len(self) >= room:
            self.popleft()
            n_dropped += 1
        self.append(item)
        return n_dropped
