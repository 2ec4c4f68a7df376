"""Compiled rules of when a run may end: what was in the sockets when it was asked to has been read.

A thread has drained a socket when a call brought fewer datagrams than it could have,
or, of a stream that does not pause, when it has read as much as the socket can hold:
what it reads from there on came after the order. The run ends when all threads have
drained theirs; one that rests looks at its sockets within ``receive_loop.POLL_MS``.
"""

from __future__ import annotations

from typing import Any

from daq_core.assembling.gate import DRAINED, DRAINING, LINE
from daq_core.kernels.compiling import kernel
from daq_core.linux.sockets import MESSAGE_LENGTH

OVERHEAD = 512
"""Bytes that the kernel counts for a datagram besides its own, at least.

Source: linux/include/linux/skbuff.h, SKB_TRUESIZE: 576 on 64 bit machines.
"""


@kernel
def begin_draining(crew: Any, me: int, epoch: int, rooms: Any, unread: Any) -> None:
    """Take each socket for full, when an order to end is seen for the first time.

    Parameters
    ----------
    epoch  : of the end, an answer of ``publication.take_orders``
    rooms  : (sockets,) int64, bytes that each can hold at most, as the kernel counts them
    unread : (sockets,) int64, bytes that may be left in each of what was there at the order
    """
    mine = (me + 1) * LINE
    if crew[mine + DRAINING] != epoch:
        crew[mine + DRAINING] = epoch
        for k in range(rooms.shape[0]):
            unread[k] = rooms[k]


@kernel
def count_read(messages: Any, n: int, unread: Any, k: int) -> None:
    """Note what one call brought from a socket: n of the datagrams that it could have, 0 or less for none."""
    if n < messages.shape[0]:
        unread[k] = 0
    for i in range(n):
        unread[k] -= messages[i, MESSAGE_LENGTH] + OVERHEAD


@kernel
def everybody_has_drained(crew: Any, me: int, epoch: int, unread: Any) -> bool:
    """Tell at the end of a turn, inside the gate, whether the run may end."""
    is_drained = True
    for k in range(unread.shape[0]):
        is_drained &= unread[k] <= 0
    if is_drained:
        crew[(me + 1) * LINE + DRAINED] = epoch
    n_drained = 0
    for other in range(LINE, crew.shape[0], LINE):
        n_drained += crew[other + DRAINED] == epoch
    return bool(n_drained == crew.shape[0] // LINE - 1)
