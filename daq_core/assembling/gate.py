"""Compiled rules of several receive threads: what they share goes through a gate, and none runs far ahead.

Each thread has ports of its own. Who finds the image of a packet, begins or ends a
run, or publishes, does so alone, inside the gate; pixels are copied outside of it,
and an image is not published before all pixels of packets that were marked in it
are in place (``Ring.placed``). So everything that one thread decides about images
is decided as by one thread, in the order in which batches come through the gate.

A thread that did not get its processor must not have its packets waiting in the
sockets while others fill the window of open images with newer ones. So no thread
begins a turn while another, that is not resting, is two turns behind; and one turn
of a port is worth a quarter of the window at most (``receiver.batch_size``).

The crew is an int64 array, a cache line for the gate and one for each thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.kernels.compiling import (
    exchange,
    kernel,
    load_acquire,
    now_ns,
    sleep_ns,
    store_release,
    yield_cpu,
)
from daq_core.ring.words import Word

LINE = 8  # words
_TURN, _EXCUSED, _BEAT = 0, 1, 2  # of a thread: turns begun, when its rest has to be over, its last turn
DRAINING, DRAINED = 3, 4  # of a thread: the last end of a run for which it began to, and had (``draining``)
_AHEAD = 2  # turns
_SPINS = 64  # before the processor is given to who may have been in the gate
_PACE_NS = 20_000
_LATE_NS = 300_000  # what waking up may take besides the rest itself


def new_crew(n_threads: int) -> npt.NDArray[np.int64]:
    """Return the memory that n receive threads share."""
    memory = np.zeros((n_threads + 2) * LINE, np.int64)
    first = -memory.ctypes.data % (8 * LINE) // 8
    return memory[first : first + (n_threads + 1) * LINE]


@kernel
def enter(crew: Any) -> None:
    """Wait until nobody else is inside the gate."""
    n_spins = 0
    while exchange(crew, 0, 1) != 0:
        while load_acquire(crew, 0) != 0:
            n_spins += 1
            if n_spins % _SPINS == 0:
                yield_cpu()


@kernel
def leave(crew: Any) -> None:
    """Let the next one in."""
    store_release(crew, 0, 0)


@kernel
def begin_turn(crew: Any, me: int, words: Any, timespec: Any) -> int:
    """Wait for threads that are behind; returns the monotonic time, and shows the time of the slowest."""
    now = now_ns(1, timespec)
    mine = (me + 1) * LINE
    store_release(crew, mine + _BEAT, now)
    n_words = crew.shape[0]
    if n_words > 2 * LINE:
        turn = crew[mine + _TURN]
        for other in range(LINE, n_words, LINE):
            turn = max(turn, load_acquire(crew, other + _TURN))
        if load_acquire(crew, mine + _EXCUSED) != 0:  # rested while others went on
            store_release(crew, mine + _TURN, turn)
            store_release(crew, mine + _EXCUSED, 0)
        while _is_ahead(crew, mine, now) and words[Word.LEAVE] == 0:
            sleep_ns(_PACE_NS, timespec)
            now = now_ns(1, timespec)
        store_release(crew, mine + _TURN, crew[mine + _TURN] + 1)
    oldest = now
    for other in range(LINE, n_words, LINE):
        oldest = min(oldest, load_acquire(crew, other + _BEAT))
    words[Word.HEARTBEAT] = oldest
    return now


@kernel
def _is_ahead(crew: Any, mine: int, now: int) -> bool:
    for other in range(LINE, crew.shape[0], LINE):
        behind = load_acquire(crew, other + _TURN) <= crew[mine + _TURN] - _AHEAD
        if behind and load_acquire(crew, other + _EXCUSED) < now:
            return True
    return False


@kernel
def rest_until(crew: Any, me: int, time: int) -> None:
    """Say that this thread sleeps until then, with nothing in its sockets: nobody has to wait for it."""
    store_release(crew, (me + 1) * LINE + _EXCUSED, time + _LATE_NS)
