"""Images that wait in the sockets of a receiver that stands still.

What was sent need not be there yet: on a busy machine the kernel hands over what each processor sent when
that one comes to it, for one port much later than for another.
"""

from __future__ import annotations

from pathlib import Path

from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, eventually


def bytes_waiting(port: int) -> int:
    """Return what the kernel says is in a UDP socket (proc_net_udp(5), rx_queue)."""
    address = f"{int.from_bytes(bytes(map(int, LOOPBACK.split('.'))), 'little'):08X}:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:])
    return next(int(row[4].partition(":")[2], 16) for row in rows if row[1] == address)


def stands_still(pid: int) -> bool:
    """Tell whether all threads of a process have stopped; the kernel takes its time after SIGSTOP."""
    states = [stat.read_text().rpartition(") ")[2][0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


async def send_to_sockets(bench: Bench, ids: list[int], rate_hz: float = 200) -> None:
    """Send images to a receiver that is told to stand still, and wait until its sockets have them all."""
    await eventually(lambda: stands_still(bench.receiver))
    await bench.send(ids, rate_hz)
    await eventually(lambda: len({bytes_waiting(port) for port in bench.simulator.ports}) == 1)
    assert bytes_waiting(bench.simulator.ports[0]) > 0
