"""What the kernel does with packets before the receiver gets them: buffers, packet size, losses so far."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from daq_core.linux.sockets import BUFFER_BYTES, buffer_size, enlarge_buffer
from ioc.program.doctor.finding import Finding, Findings

SYSCTL = Path("/proc/sys/net/core")
CARDS = Path("/sys/class/net")
SOFTNET = Path("/proc/net/softnet_stat")
UDP_MEMORY = Path("/proc/sys/net/ipv4/udp_mem")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
UDP_AND_IP_HEADERS = 28
JUMBO = 9000
LEAST_BUFFER = 2**20
MIB = 2**20


def look_at_network(udp_host: str, datagram_bytes: int, n_ports: int = 1) -> Findings:
    """Look at what packets of a size meet on their way to some ports; 0 bytes: nothing comes by UDP."""
    if not datagram_bytes:
        return
    yield _socket_buffer()
    yield _udp_memory(n_ports)
    yield _backlog()
    for card in _cards_of(udp_host):
        yield _packet_size(card, datagram_bytes)
        yield _losses(card)


def _socket_buffer() -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        enlarge_buffer(probe, BUFFER_BYTES)
        granted = buffer_size(probe)
    rmem_max = int((SYSCTL / "rmem_max").read_text())
    text = f"{granted / MIB:.2f} MiB a port (rmem_max {rmem_max}): {granted / 1e6:.2g} ms at 1 GB/s"
    cure = f"sysctl -w net.core.rmem_max={BUFFER_BYTES}   # or grant CAP_NET_ADMIN"
    if granted >= BUFFER_BYTES:
        how = "" if rmem_max >= BUFFER_BYTES else ", past rmem_max by CAP_NET_ADMIN"
        return Finding("socket buffer", "good", text + how)
    return Finding("socket buffer", "problem" if granted < LEAST_BUFFER else "limits", text, cure)


def _udp_memory(n_ports: int) -> Finding:
    """All buffers together must not exceed what the kernel has for UDP (udp(7), in pages)."""
    pages = [int(n) for n in UDP_MEMORY.read_text().split()]
    most, needed = pages[-1] * PAGE_BYTES, n_ports * BUFFER_BYTES
    text = f"{most / MIB:.0f} MiB for all sockets, {n_ports} full buffers take {needed / MIB:.0f} MiB"
    if most >= needed:
        return Finding("UDP memory", "good", text)
    wanted = -(-2 * needed // PAGE_BYTES)
    return Finding(
        "UDP memory", "limits", text, f"sysctl -w net.ipv4.udp_mem='{wanted // 2} {wanted * 3 // 4} {wanted}'"
    )


def _backlog() -> Finding:
    """Packets that found the queue between card and stack full (second column, hexadecimal), since boot."""
    dropped = sum(int(line.split()[1], 16) for line in SOFTNET.read_text().splitlines())
    longest = int((SYSCTL / "netdev_max_backlog").read_text())
    if not dropped:
        return Finding("kernel backlog", "good", f"{longest} packets, none dropped since boot")
    return Finding(
        "kernel backlog",
        "limits",
        f"{dropped} packets dropped since boot, it holds {longest}",
        f"sysctl -w net.core.netdev_max_backlog={max(10_000, 10 * longest)}",
    )


def _cards_of(udp_host: str) -> list[str]:
    """Return the network cards that packets for an address come through: those that are up, or the one."""
    addresses = {
        card: [entry.address for entry in entries if entry.family is socket.AF_INET]
        for card, entries in psutil.net_if_addrs().items()
    }
    up = [card for card in addresses if _read(card, "operstate") in ("up", "unknown") and addresses[card]]
    if udp_host == "0.0.0.0":
        return [card for card in up if card != "lo"]
    is_loopback = udp_host.startswith("127.")
    return [card for card in up if udp_host in addresses[card] or (card == "lo" and is_loopback)]


def _packet_size(card: str, datagram_bytes: int) -> Finding:
    mtu = int(_read(card, "mtu"))
    needed = datagram_bytes + UDP_AND_IP_HEADERS
    text = f"{card}: packets up to {mtu} bytes, the detector's have {needed}"
    if mtu >= needed:
        return Finding("MTU", "good", text)
    return Finding(
        "MTU",
        "limits",
        f"{text}: each comes in {-(-needed // mtu)} pieces, and is lost with one of them",
        f"ip link set dev {card} mtu {max(JUMBO, needed)}   # on the switches and the sender too",
    )


def _losses(card: str) -> Finding:
    """What the card had no room for: not every driver tells all of it."""
    lost = {
        name: int(_read(card, f"statistics/{name}") or 0) for name in ("rx_missed_errors", "rx_fifo_errors")
    }
    if not any(lost.values()):
        return Finding("card", "good", f"{card}: lost nothing since boot")
    return Finding(
        "card",
        "limits",
        f"{card}: " + ", ".join(f"{name} {n}" for name, n in lost.items()) + " since boot",
        f"ethtool -g {card}; ethtool -G {card} rx 4096",
    )


def _read(card: str, name: str) -> str:
    try:
        return (CARDS / card / name).read_text().strip()
    except OSError:
        return ""
