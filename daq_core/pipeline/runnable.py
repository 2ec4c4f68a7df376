"""Whether a config can run here and now: what can be known of it before the receiver that ran is ended.

A config that passes may still not come up, for others take ports and memory meanwhile;
``daq_core.control.deployment`` goes back to the one before then.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Collection

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.linux.memory import present_memory
from daq_core.linux.sockets import why_not_opened
from daq_core.pipeline.ring_size import choose_ring

OTHER_DESCRIPTORS = 64  # what a receiver has open besides a socket for each port


def check_runnable(
    config: DaqConfig, udp_host: str, *, own_ports: Collection[int] = (), returned_bytes: int = 0
) -> None:
    """Refuse a config for which memory, ports or rights are wanting; looks into /proc, so not for the loop.

    Parameters
    ----------
    own_ports : UDP ports that the receiver in use will give back
    returned_bytes : memory that it will give back

    Raises
    ------
    Unavailable
        What is wanting, who has it, and what to do.
    """
    choose_ring(config, present_memory(), returned_bytes=returned_bytes)
    ports = config.layout.udp_ports
    _check_descriptors(len(ports))
    wanting = {port: reason for port in ports if port not in own_ports and (reason := _try(udp_host, port))}
    if wanting:
        raise Unavailable(_told(wanting, udp_host))


def _check_descriptors(n_ports: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most not in (resource.RLIM_INFINITY, -1) and n_ports + OTHER_DESCRIPTORS > most:
        raise Unavailable(
            f"{n_ports} UDP ports need {n_ports + OTHER_DESCRIPTORS} open files, and this process may have "
            f"{most}: raise the limit (ulimit -n, LimitNOFILE= of a unit)."
        )


def _try(host: str, port: int) -> int:
    """Bind a port and let it go again; return the errno, 0 when it is free."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((host, port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _told(wanting: dict[int, int], host: str) -> str:
    port, number = next(iter(wanting.items()))
    others = f" (and {len(wanting) - 1} more)" if len(wanting) > 1 else ""
    return f"UDP port {port}{others} on {host} cannot be opened: {why_not_opened(number, port)}"
