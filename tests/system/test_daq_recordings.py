"""Packets of real and virtual detectors, recorded by others, become the files they must become."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from pathlib import Path

import h5py
import pytest

from daq_core.config import DaqConfig
from daq_core.recordings.recording import load_recording
from daq_core.recordings.replay import replay
from ioc.program.ports import free_ports
from tests.daq.loopback import loopback_daq
from tests.machine.judges import absent

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"


@pytest.mark.parametrize("name", ["eiger-500k-32bit", "eiger-500k-16bit", "jungfrau-1-module"])
async def test_a_recording_becomes_its_expected_images(name: str, tmp_path: Path) -> None:
    """Ids and SHA-256 of each image are those in the recording's ``expected.json``."""
    folder = RECORDINGS / name
    if not folder.is_dir():
        absent("recordings", f"{name} is not there")
    recorded = DaqConfig.load(folder / "config.json")
    port = free_ports(recorded.n_modules, socket.SOCK_DGRAM)
    config = recorded.merge({"start_udp_port": port, "ram_buffer_gb": 0.05})
    expected = json.loads((folder / "expected.json").read_text())

    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(len(expected))
        await asyncio.to_thread(replay, load_recording(folder), port_offset=port - recorded.start_udp_port)
        await bench.end()

    with h5py.File(path) as file:
        ids = file["entry/data/image_id"][:].tolist()
        sums = [hashlib.sha256(image.tobytes()).hexdigest() for image in file["entry/data/data"]]
        assert file["entry/data/missing_packets"][:].tolist() == [0] * len(expected)
    assert dict(zip(map(str, ids), sums, strict=True)) == {
        i: image["sha256"] for i, image in expected.items()
    }
