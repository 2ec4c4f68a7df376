"""How much space is left where the next run would be written, asked between runs.

During a run its writer looks, once a second. Between two runs somebody else may fill
the disk, and before the first one nobody has looked: then this does. The file system may
hang, so a thread asks; while it gets no answer nothing more is asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future

from daq_core.files.output import UNKNOWN, space_left
from daq_core.linux.disk_thread import DiskThread

LOOK_S = 5.0  # between two looks at the same folder


class FreeSpace:
    """Asks for the space of one folder. `note` is given the free bytes, or UNKNOWN, in the loop."""

    def __init__(self, folder: str, note: Callable[[int], None]) -> None:
        self._folder = folder
        self._note = note
        self._thread = DiskThread("free space")
        self._asked: Future[None] | None = None
        self._answer: tuple[str, int] | None = None
        self._next_s = 0.0

    def ask_of(self, folder: str) -> None:
        """The next run would be written there; "" leaves it at the folder it was."""
        if folder and folder != self._folder:
            self._folder = folder
            self._next_s = 0.0

    def look(self) -> None:
        """Note an answer that has come, and ask anew when it is time; to be called between runs, often."""
        if self._asked is not None:
            if not self._asked.done():
                if time.monotonic() >= self._next_s:  # it hangs; the last answer is no news any more
                    self._note(UNKNOWN)
                return
            self._asked = None
            if self._answer is not None and self._answer[0] == self._folder:
                self._note(self._answer[1])
        if self._folder and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + LOOK_S
            folder = self._folder
            self._asked = self._thread.submit(lambda: self._look_at(folder))

    async def end(self) -> None:
        await self._thread.finish(0)

    def _look_at(self, folder: str) -> None:
        self._answer = folder, free_bytes(folder)


def free_bytes(folder: str) -> int:
    """Return what its file system has left, or UNKNOWN: it is not there, or does not say.

    A folder inside one that only the writer's user may enter has the space of that one.
    """
    while True:
        try:
            space = os.statvfs(folder)
        except PermissionError:
            folder = os.path.dirname(folder)  # at the latest / may be asked
        except OSError:  # it is not there
            return UNKNOWN
        else:
            return space_left(space)
