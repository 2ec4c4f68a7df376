"""A client that behaves as the cSAXS Eiger device of ``ophyd_devices``: its calls, its polls, its time-outs.

Source: ophyd_devices 0.33.6, ``epics/devices/eiger9m_csaxs.py`` (sequence and limits, not its code).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from std_daq_client import StdDaqClient

from tests.processes.service import Service

POLL_S = 0.01
LIMIT_S = 5.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll as the device does: every 10 ms, for 5 s at most."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {LIMIT_S} s"
        time.sleep(POLL_S)


def change_one_key(client: StdDaqClient, key: str, value: object) -> None:
    """Read the config, change a key of the same type, write all of it back, wait until READY."""
    config = client.get_config()
    assert type(config[key]) is type(value)
    config[key] = value
    client.set_config(config)
    wait_for(lambda: client.get_status()["state"] == "READY", "READY after set_config")


def take(client: StdDaqClient, service: Service, path: str, n_images: int) -> None:
    client.stop_writer()
    client.start_writer_async({"output_file": path, "n_images": n_images})
    wait_for(lambda: client.get_status()["acquisition"]["state"] == "WAITING_IMAGES", "WAITING_IMAGES")
    service.simulator().send(n_images, rate_hz=200)

    def complete() -> bool:
        acquisition = client.get_status()["acquisition"]
        return acquisition["state"] == "FINISHED" and acquisition["stats"]["n_write_completed"] == n_images

    wait_for(complete, "FINISHED with every image")
    client.stop_writer()


def test_the_csaxs_device_gets_through_its_sequence_twice(service: Service) -> None:
    client = StdDaqClient(service.rest_url)
    client.stop_writer()
    change_one_key(client, "writer_user_id", 0)
    change_one_key(client, "detector_name", "eiger9m")  # the receiver itself restarts for this one
    for number in range(2):
        take(client, service, str(service.output / f"S0000{number}.h5"), n_images=20)
