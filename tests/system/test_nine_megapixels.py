"""A detector of 9 megapixels and 32 bit, on 72 ports, is assembled exactly, in the memory that was given."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from daq_core.simulating import sender
from ioc.program.ports import free_ports
from tests.daq.loopback import assert_holds, loopback_daq

N_IMAGES = 3
RING_GB = 0.5
IMAGE_BYTES = 3264 * 3106 * 4
MIB = 2**20


def eiger_9m() -> DaqConfig:
    """72 half modules, in six columns of twelve: each second one upside down, gaps of 2, 8 and 36 pixels."""
    positions = {}
    for module in range(72):
        column, row = 2 * (module // 24) + module % 2, module % 24 // 2
        x = column // 2 * 1038 + column % 2 * 516
        y = 3008 - row // 2 * 550
        y_start, y_end = (y, y + 255) if row % 2 == 0 else (y - 3, y - 258)
        positions[str(module)] = [x, y_start, x + 513, y_end]
    return DaqConfig.parse(
        {
            "detector_name": "EG9M",
            "detector_type": "eiger",
            "bit_depth": 32,
            "image_pixel_height": 3264,
            "image_pixel_width": 3106,
            "n_modules": 72,
            "start_udp_port": free_ports(72, socket.SOCK_DGRAM),
            "writer_user_id": 0,
            "module_positions": positions,
            "ram_buffer_gb": RING_GB,
            "image_timeout_s": 3,
        }
    )


def memory_mib(pid: int) -> dict[str, float]:
    """Return a process's memory: shared (RssShmem), its own (RssAnon), and its highest sum (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssShmem", "RssAnon", "VmHWM")}


@pytest.mark.timeout(120)
async def test_nine_megapixels_on_72_ports_are_assembled_exactly_within_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte a second is the detector's; here three images show that the places are right.

    Packets of an image are spread over most of a second, for a receive buffer of
    Linux's default size and for other tests on the same machine.
    """
    monkeypatch.setattr(sender, "MAX_SPREAD_S", 0.8)
    async with loopback_daq(eiger_9m(), tmp_path) as bench:
        layout = bench.simulator.layout
        assert (layout.image_bytes, layout.n_units, len(layout.ports)) == (IMAGE_BYTES, 72 * 128, 72)
        path, ids = await bench.start(N_IMAGES), bench.next_ids(N_IMAGES)
        writer = bench.writer
        await bench.send(ids, rate_hz=1)
        # The ring is RING_GB at most, and not a byte is held twice.
        n_slots = bench.counters().ring_slots
        assert 8 <= n_slots <= RING_GB * 1024 * MIB / IMAGE_BYTES
        for pid in (bench.receiver, *([writer] if bench.writers else [])):
            memory = memory_mib(pid)
            assert memory["RssShmem"] <= RING_GB * 1024 + 1, (pid, memory)
            assert memory["RssAnon"] < 300, (pid, memory)
        status = await bench.end(30)
        assert (status.acquisition.message, status.acquisition.n_write_completed) == ("Completed.", N_IMAGES)
        counters = bench.counters()
        assert (counters.packets_placed, counters.missing_packets) == (N_IMAGES * 9216, 0)
        assert_holds(path, bench.simulator, ids)
