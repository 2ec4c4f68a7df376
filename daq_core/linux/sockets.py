"""UDP sockets, and receiving and sending many datagrams with one system call from compiled code."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.errors import Unavailable
from daq_core.linux.port_holders import holder_of

log = logging.getLogger(__name__)

MESSAGE_BYTES = 64
"""sizeof(struct mmsghdr) on 64-bit Linux: a msghdr of 56 bytes, msg_len, padding (recvmmsg(2))."""
MESSAGE_LENGTH = 14
"""Which 32-bit word of a struct mmsghdr is msg_len."""

SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
_MEMINFO_USED, _MEMINFO_SIZE, _MEMINFO_DROPS = 0, 1, 8
"""Source: linux/include/uapi/asm-generic/socket.h, linux/sock_diag.h (SK_MEMINFO_RMEM_ALLOC, …)."""

MSG_DONTWAIT = 0x40
MSG_TRUNC = 0x20
"""With it msg_len is the length that was sent, also where the buffer is too short for it (udp(7))."""

BUFFER_BYTES = 64 * 2**20
"""Asked for per UDP port that is received; the kernel only uses what is waiting."""


def open_receiver(host: str, port: int, buffer_bytes: int) -> socket.socket:
    """Bind a UDP socket with as large a receive buffer as the kernel grants.

    Raises
    ------
    Unavailable
        The port is taken or the address is not of this machine.
    """
    receiver = None
    try:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        enlarge_buffer(receiver, buffer_bytes)
        receiver.bind((host, port))
    except OSError as error:
        if receiver is not None:
            receiver.close()
        why = why_not_opened(error.errno or errno.EINVAL, port)
        raise Unavailable(f"UDP port {port} on {host} cannot be opened: {why}") from None
    return receiver


def why_not_opened(number: int, port: int) -> str:
    """Say why a UDP port cannot be opened, of an errno, and what to do; looks into /proc for who holds it."""
    if number == errno.EADDRINUSE:
        who = holder_of(port)
        held = f"it is held by {who}" if who else "it is in use"
        show = "" if "process" in who else f"; `ss -ulpn sport = :{port}` shows by whom"
        return f"{held}{show}. End that program, or change start_udp_port in the config."
    if number < 0:  # of the name service
        return "that is no IPv4 address; see --udp-host."
    if number == errno.EADDRNOTAVAIL:
        return "this machine has no such address; see --udp-host."
    if number == errno.EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE."
    return f"{os.strerror(number)}."


def enlarge_buffer(receiver: socket.socket, buffer_bytes: int) -> None:
    """Ask for a receive buffer past rmem_max, which needs CAP_NET_ADMIN, or take what is given."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


def buffer_size(receiver: socket.socket) -> int:
    """Return the usable bytes of the receive buffer (the kernel reports them doubled)."""
    return receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def kernel_drops(receiver: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at this socket, modulo 2³²."""
    return memory_info(receiver)[_MEMINFO_DROPS]


def memory_use(receiver: socket.socket) -> tuple[int, int]:
    """Return the memory of the datagrams that wait in a socket, and the most it may be.

    The kernel counts what a datagram takes of its memory, which is more than its length.
    """
    info = memory_info(receiver)
    return info[_MEMINFO_USED], info[_MEMINFO_SIZE]


def memory_info(receiver: socket.socket) -> tuple[int, ...]:
    """Return the nine numbers of a socket's memory (SO_MEMINFO)."""
    return struct.unpack("9I", receiver.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


class DatagramBatch:
    """Memory for one recvmmsg or sendmmsg call: datagrams, and the messages that point at them.

    datagrams : (batch * stride,) uint8
    messages  : (batch, 16) uint32, struct mmsghdr
    """

    def __init__(self, batch: int, datagram_bytes: int) -> None:
        self.stride = -(-(datagram_bytes + 8) // 64) * 64  # 8 more, so that too long ones show
        self.datagrams = _aligned(batch * self.stride)
        self.messages, self._vectors = build_messages(
            self.datagrams.ctypes.data + np.arange(batch, dtype=np.uint64) * np.uint64(self.stride),
            np.full(batch, datagram_bytes + 8, np.uint64),
        )


def build_messages(
    addresses: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    """Build struct mmsghdr and struct iovec arrays, one vector a message, no names, no control data."""
    n = len(addresses)
    vectors = np.zeros((n, 2), np.uint64)
    vectors[:, 0] = addresses
    vectors[:, 1] = lengths
    messages = np.zeros((n, MESSAGE_BYTES // 8), np.uint64)
    messages[:, 2] = vectors.ctypes.data + np.arange(n, dtype=np.uint64) * np.uint64(16)  # msg_iov
    messages[:, 3] = 1  # msg_iovlen
    return messages.view(np.uint32), vectors


def _aligned(n_bytes: int, alignment: int = 4096) -> npt.NDArray[np.uint8]:
    memory = np.zeros(n_bytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + n_bytes]


def close_all(sockets: list[Any]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.close()
