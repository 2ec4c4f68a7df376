"""The config of a small Jungfrau: two modules, with 16 and 8 rows, one below the other."""

from __future__ import annotations

import socket
from typing import Any

from daq_core.config import DaqConfig
from ioc.program.ports import free_ports


def small_jungfrau(**changes: Any) -> DaqConfig:
    """Return it, by default on free ports; `changes` are keys of the config."""
    if "start_udp_port" not in changes:
        changes["start_udp_port"] = free_ports(2, socket.SOCK_DGRAM)
    values = {
        "detector_name": "JF-small",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": 24,
        "image_pixel_width": 1024,
        "n_modules": 2,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 1023, 15], "1": [0, 16, 1023, 23]},
    }
    return DaqConfig.parse(values | changes)
