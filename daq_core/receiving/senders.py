"""Whose packets are taken: an optional list of senders, looked at once per batch of datagrams.

Without a list the kernel is not even asked for the senders' addresses. A source
address is a claim like any other: the list keeps out what is misdirected, and
whoever cannot send with a false one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from daq_core.kernels.compiling import copy_bytes, kernel
from daq_core.linux.network import Network
from daq_core.linux.sockets import MESSAGE_LENGTH
from daq_core.ring.words import Word

NAME_WORDS = 4
"""sizeof(struct sockaddr_in) in 32-bit words: family and port, address, padding (ip(7))."""
NAME_ADDRESS = 1


class Senders(NamedTuple):
    """Who sent each datagram, and who may.

    names   : (batch, NAME_WORDS) uint32  of :func:`name_senders`; no rows: everybody may
    allowed : (networks, 2) uint32        of :func:`allowed_senders`
    """

    names: Any
    allowed: Any


SENDERS_TYPE = types.NamedUniTuple(types.uint32[:, ::1], 2, Senders)


def allowed_senders(networks: Sequence[Network]) -> npt.NDArray[np.uint32]:
    """Return (networks, 2) uint32, address and mask of IPv4 networks, their bytes as they are on the wire."""
    pairs = [network.network_address.packed + network.netmask.packed for network in networks]
    return np.frombuffer(b"".join(pairs), np.uint32).reshape(-1, 2).copy()


def name_senders(messages: npt.NDArray[np.uint32], *, wanted: bool) -> npt.NDArray[np.uint32]:
    """Have recvmmsg tell who sent each datagram, if that is wanted.

    Parameters
    ----------
    messages : (batch, 16) uint32, struct mmsghdr; msg_name and msg_namelen are set in place

    Returns
    -------
    (batch, NAME_WORDS) uint32, or (0, NAME_WORDS) when nobody asks
    """
    batch = len(messages) if wanted else 0
    names = np.zeros((batch, NAME_WORDS), np.uint32)
    if wanted:
        headers = messages.view(np.uint64)
        headers[:, 0] = names.ctypes.data + np.arange(batch, dtype=np.uint64) * np.uint64(4 * NAME_WORDS)
        headers[:, 1] = 4 * NAME_WORDS  # the kernel writes the same number there each time
    return names


@kernel
def drop_foreign(senders: Any, batch: Any, n: int, ring: Any) -> int:
    """Count the datagrams of senders that are not allowed, and close the gaps they leave.

    Parameters
    ----------
    senders : Senders
    batch   : Batch    moved in place
    n       : int      the datagrams received

    Returns
    -------
    int  how many are left, the first of the batch
    """
    datagrams, stride, messages = batch.datagrams, batch.stride, batch.messages
    allowed = senders.allowed
    kept = 0
    for i in range(n):
        address = senders.names[i, NAME_ADDRESS]
        is_allowed = False
        for k in range(allowed.shape[0]):
            is_allowed |= (address & allowed[k, 1]) == allowed[k, 0]
        if not is_allowed:
            continue
        if kept < i:
            copy_bytes(datagrams, kept * stride, datagrams, i * stride, stride)
            messages[kept, MESSAGE_LENGTH] = messages[i, MESSAGE_LENGTH]
        kept += 1
    ring.words[Word.RECEIVED] += n - kept
    ring.words[Word.FOREIGN] += n - kept
    return kept
