"""Whether the ports that the service needs are free."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from ioc.program.doctor.finding import Finding, Findings

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
PROTOCOL = {UDP: "UDP", TCP: "TCP"}
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
SHOWN = 5


def look_at_udp_ports(udp_host: str, ports: list[int]) -> Findings:
    """Look at the ports that the detector sends to."""
    if not ports:
        return
    yield _look("detector's ports", udp_host, ports, UDP)
    low, high = map(int, EPHEMERAL.read_text().split())
    lent = [port for port in ports if low <= port <= high and not _is_reserved(port)]
    if lent:
        yield Finding(
            "detector's ports",
            "limits",
            f"{_listed(lent)}: the kernel lends ports {low}..{high} to any program",
            f"sysctl -w net.ipv4.ip_local_reserved_ports={min(ports)}-{max(ports)}",
        )


def look_at_faces(bind: str, rest_port: int, redis_port: int | None, ca_port: int) -> Findings:
    """Look at the ports that people and programs call."""
    yield _look("REST port", bind, [rest_port], TCP, other="--rest-port")
    if redis_port is not None:
        yield _look("Redis port", bind, [redis_port], TCP, other="--redis-port")
    for kind in (TCP, UDP):
        yield _look(f"CA port, {PROTOCOL[kind]}", bind, [ca_port], kind, other="--ca-port")


def _look(subject: str, host: str, ports: list[int], kind: socket.SocketKind, other: str = "") -> Finding:
    refused = {port: error for port in ports if (error := _try(host, port, kind))}
    if not refused:
        return Finding(subject, "good", f"{_listed(ports)} free on {host}")
    error = next(iter(refused.values()))
    text = f"{PROTOCOL[kind]} {_listed(list(refused))} on {host}: {os.strerror(error).lower()}"
    if error == errno.EADDRINUSE:
        show = f"ss -{'u' if kind == UDP else 't'}lpn 'sport = :{next(iter(refused))}'"
        cure = f"{show}   # a running service?" + (f" or choose another with {other}" if other else "")
    elif error == errno.EADDRNOTAVAIL:
        cure = "ip -4 address   # the addresses of this machine; see --bind, --udp-host"
    else:
        cure = "use ports above 1023, or grant CAP_NET_BIND_SERVICE"
    return Finding(subject, "problem", text, cure)


def _try(host: str, port: int, kind: socket.SocketKind) -> int:
    """Bind a port and let it go again; return the errno, 0 when it is free."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == TCP:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def _is_reserved(port: int) -> bool:
    spans = (span.partition("-") for span in RESERVED.read_text().strip().split(",") if span)
    return any(int(first) <= port <= int(last or first) for first, _, last in spans)


def _listed(ports: list[int]) -> str:
    if len(ports) > SHOWN:
        return f"{ports[0]}..{ports[-1]}" if len(ports) == ports[-1] - ports[0] + 1 else f"{len(ports)} ports"
    return ", ".join(map(str, ports))
