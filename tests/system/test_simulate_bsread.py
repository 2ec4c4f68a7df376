"""``std-daq-ioc simulate`` as a bsread camera: the messages are those that its options ask for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zmq

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.receiving.stream_messages import MessageReader
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK, free_ports

CAMERA = {
    "detector_name": "CAM",
    "detector_type": "bsread",
    "bit_depth": 16,
    "image_pixel_height": 35,
    "image_pixel_width": 51,
    "n_modules": 1,
    "start_udp_port": 0,
    "writer_user_id": 0,
    "module_positions": {},
}
EIGER = {
    "detector_type": "eiger",
    "image_pixel_height": 256,
    "image_pixel_width": 514,
    "start_udp_port": 50000,
    "module_positions": {"0": [0, 0, 513, 255]},
}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(CAMERA | {"stream_addresses": [f"tcp://{LOOPBACK}:{free_ports()}"]}))
    return path


def simulate(config_file: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ioc", "simulate", "--config", str(config_file), "--rate", "50"]
    return subprocess.Popen(
        [*command, "--images", "3", "--json", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), {"htype": "bsr_m-1.1"}),
        (
            ("--format", "array-1.0", "--compression", "lz4", "--encoding", "big"),
            {"htype": "array-1.0", "compression": "lz4", "encoding": "big"},
        ),
    ],
    ids=["plain bsread", "array-1.0"],
)
def test_messages_are_sent_as_the_options_say(
    config_file: Path, options: tuple[str, ...], said: dict[str, str]
) -> None:
    config = DaqConfig.load(config_file)
    simulator, reader = Simulator(config), MessageReader(layout_of(config))
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver:
        receiver.rcvtimeo, receiver.linger = 60_000, 0
        receiver.connect(config.stream_addresses[0])
        process = simulate(config_file, *options)
        for image_id in (1, 2, 3):
            parts = receiver.recv_multipart()
            header = json.loads(parts[0])
            assert {key: header[key] for key in said} == said
            message = reader.read(parts)
            image = np.zeros(layout_of(config).image_shape, np.uint16)
            message.put(image)
            assert message.image_id == image_id
            np.testing.assert_array_equal(image, simulator.image(image_id))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["n_refused"] == 0


def test_a_detector_of_packets_has_no_messages_to_compress(tmp_path: Path) -> None:
    path = tmp_path / "eiger.json"
    path.write_text(json.dumps(CAMERA | EIGER))
    process = simulate(path, "--compression", "lz4")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a detector of type eiger sends packets, not messages" in err
    assert len(err.splitlines()) == 1
