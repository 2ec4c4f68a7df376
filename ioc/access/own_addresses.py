"""The IPv4 addresses of this machine, as the kernel has them now."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

SIOCGIFCONF = 0x8912  # linux/sockios.h
IFCONF = struct.Struct("iP")  # struct ifconf: size of a buffer, and where it is
NAME_BYTES = 16
IFREQ_BYTES = struct.calcsize("16s") + max(16, struct.calcsize("PPP"))  # name, union with struct ifmap
SIOCGIFBRDADDR = 0x8919
ADDRESS = slice(20, 24)  # of an ifreq: name, family, port, address


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of all interfaces, second ones too; source: netdevice(7)."""
    size = 32 * IFREQ_BYTES
    while True:
        buffer = array.array("B", bytes(size))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            asked = IFCONF.pack(size, buffer.buffer_info()[0])
            used, _ = IFCONF.unpack(fcntl.ioctl(sock, SIOCGIFCONF, asked))
        if used < size:  # else there may be more
            found = buffer.tobytes()[:used]
            entries = (found[i : i + IFREQ_BYTES] for i in range(0, used, IFREQ_BYTES))
            return tuple(socket.inet_ntoa(entry[ADDRESS]) for entry in entries)
        size *= 2


def broadcast_addresses() -> tuple[str, ...]:
    """Return the broadcast address of each interface that has one; source: netdevice(7)."""
    found: dict[str, None] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            asked = name.encode()[: NAME_BYTES - 1].ljust(IFREQ_BYTES, b"\0")
            try:
                answer = fcntl.ioctl(sock, SIOCGIFBRDADDR, asked)
            except OSError:  # it has no address
                continue
            found[socket.inet_ntoa(answer[ADDRESS])] = None
    found.pop("0.0.0.0", None)  # of loopback, and of lines between two machines
    return tuple(found)
