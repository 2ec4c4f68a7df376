"""The detectors that are measured, as configs on ports that are free now."""

from __future__ import annotations

import socket
from typing import Any

from daq_core.config import DaqConfig


def jungfrau(n_modules: int = 1, *, height: int = 512, offset: int = 0, flipped: bool = False) -> DaqConfig:
    """Jungfrau modules above each other, contiguous unless there is an offset.

    height : rows of each module
    offset : columns left free on both sides, so that rows are apart in memory
    flipped : the modules stand upside down
    """
    positions = {}
    for module in range(n_modules):
        top, bottom = module * height, (module + 1) * height - 1
        rows = (bottom, top) if flipped else (top, bottom)
        positions[str(module)] = [offset, rows[0], offset + 1023, rows[1]]
    return _config("jungfrau", n_modules * height, 1024 + 2 * offset, positions)


def eiger(*, flip_x: bool, bit_depth: int = 16) -> DaqConfig:
    """One half module of an Eiger with its chip gap, upside down, and mirrored too with `flip_x`."""
    columns = (513, 0) if flip_x else (0, 513)
    return _config("eiger", 256, 514, {"0": [columns[0], 255, columns[1], 0]}, bit_depth=bit_depth)


def eiger_9m() -> DaqConfig:
    """A large Eiger: 72 half modules on as many ports, 3084 × 3072 pixels."""
    positions = {}
    for row in range(12):
        for column in range(6):
            x, y = column * 514, row * 256
            positions[str(row * 6 + column)] = [x, y, x + 513, y + 255]
    return _config("eiger", 12 * 256, 6 * 514, positions)


def gigafrost(width: int, height: int) -> DaqConfig:
    """The images of a GigaFRoST."""
    return _config("gigafrost", height, width, {}, n_modules=8)


def _config(
    kind: str,
    height: int,
    width: int,
    positions: dict[str, list[int]],
    *,
    bit_depth: int = 16,
    n_modules: int | None = None,
) -> DaqConfig:
    n_modules = n_modules or len(positions)
    values: dict[str, Any] = {
        "detector_name": "bench",
        "detector_type": kind,
        "bit_depth": bit_depth,
        "image_pixel_height": height,
        "image_pixel_width": width,
        "n_modules": n_modules,
        "start_udp_port": free_ports(n_modules),
        "writer_user_id": 0,
        "module_positions": positions,
    }
    return DaqConfig.parse(values)


def free_ports(n: int) -> int:
    """Return the first of n UDP ports in a row that nobody uses."""
    for _ in range(100):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(n)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            start = int(sockets[0].getsockname()[1])
            for port, one in enumerate(sockets[1:], start + 1):
                one.bind(("127.0.0.1", port))
            return start
        except (OSError, OverflowError):
            continue
        finally:
            for one in sockets:
                one.close()
    raise OSError(f"no {n} free UDP ports in a row")
