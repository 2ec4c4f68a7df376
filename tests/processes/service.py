"""A real ``std-daq-ioc serve`` in a process of its own, on free ports of loopback, for tests.

See the fixtures ``service`` and ``start_service`` in ``conftest.py``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

from daq_core.config import DaqConfig
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports
from tests.processes.control_group import inside

SILENT_S = 90.0  # a start may take long, as the first of a fresh clone compiles the kernels; but it says so
END_WITHIN_S = 20.0

JUNGFRAU_2 = {
    "detector_name": "jungfrau",
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "n_modules": 2,
    "image_pixel_height": 1024,
    "image_pixel_width": 1024,
    "start_udp_port": 0,
    "writer_user_id": -1,
    "module_positions": {"0": [0, 0, 1023, 511], "1": [0, 512, 1023, 1023]},
    "ram_buffer_gb": 0.125,
}
"""Two Jungfrau modules; the UDP ports are chosen when a service starts."""


class Service:
    """One running service, and where to find it.

    Attributes
    ----------
    rest_url, redis_port, prefix, ca_port : addresses of the faces, e.g. PV ``prefix + "DAQ:State_RBV"``
    config : DaqConfig           with the UDP ports it listens on
    output : Path                an empty folder that it may write in
    stderr : Path                its log
    ca_environment : dict        for subprocesses that use a C client of Channel Access
    """

    def __init__(
        self, folder: Path, detector: Mapping[str, Any], options: Mapping[str, Any], n_ports: int = 0
    ) -> None:
        """Take `options` as serve does: ``sync_limit=1`` is ``--sync-limit 1``, ``overwrite=True`` a flag.

        n_ports : free UDP ports, where a later detector needs more than one for each module of this
        """
        n_ports = max(n_ports, int(detector["n_modules"]))
        self.config = DaqConfig.parse({**detector, "start_udp_port": free_ports(n_ports, socket.SOCK_DGRAM)})
        self.output = folder / "output"
        self.output.mkdir(mode=0o777, exist_ok=True)
        self.config_file = folder / "detector.json"
        self.config_file.write_text(json.dumps(self.config.as_dict()))
        self.stderr = folder / "stderr.txt"
        self.prefix = "T" + "".join(random.choices(string.ascii_uppercase, k=6)) + ":"
        rest_port, self.redis_port = free_ports(), free_ports()
        self.rest_url = f"http://{LOOPBACK}:{rest_port}"
        self.ca_port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        self.ca_environment = channel_access_environment(self.ca_port)
        self.options = {
            "config": self.config_file,
            "prefix": self.prefix,
            "rest_port": rest_port,
            "redis_port": self.redis_port,
            "ca_port": self.ca_port,
            "udp_host": LOOPBACK,
            "state_dir": folder / "state",
            "output_root": folder,
            **options,
        }
        self.ready_line = ""
        self.group: Path | None = None  # control group to run in
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait for its READY line."""
        command = [sys.executable, "-m", "ioc", "serve", *command_line(self.options)]
        if self.group is not None:
            command = inside(self.group, *command)
        with self.open_log() as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.ca_environment},
            )
        assert self._process.stdout is not None
        with killed_when_silent(self._process, self.stderr):
            self.ready_line = self._process.stdout.readline().rstrip()
        if not self.ready_line.startswith("READY"):
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"not READY but {self.ready_line!r}; its log:\n{self.log()}")

    def open_log(self) -> IO[str]:
        """Open what the process's stderr goes to."""
        return self.stderr.open("a")

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process, wait for its end, return its exit code; it is killed when it hangs."""
        assert self._process is not None
        self._process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process ends by itself, return its exit code; it is killed when it does not."""
        assert self._process is not None
        try:
            return self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"did not end within {END_WITHIN_S} s; its log:\n{self.log()}") from None
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def discard(self) -> None:
        """End the process in teardown; a service that a test did not end itself must end well."""
        if self._process is None:
            return
        was_running = self.running
        code = self.end()
        if was_running:
            assert code == 0, f"ended with exit code {code}; its log:\n{self.log()}"

    def log(self) -> str:
        return self.stderr.read_text(errors="replace")

    def logged(self, *texts: str, seconds: float = 15) -> str:
        """Return the first log line that has all these texts; a thread writes the log a moment later."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.log().splitlines():
                if all(text in line for text in texts):
                    return line
            assert time.monotonic() < deadline, f"no line with {texts} after {seconds} s; log:\n{self.log()}"
            time.sleep(0.02)

    def simulator(self, *, seed: int = 0) -> Simulator:
        """Return a detector that sends to this service."""
        return Simulator(self.config, host=LOOPBACK, seed=seed)

    def get(self, path: str) -> dict[str, Any]:
        """Return a REST answer: ``service.get("/writer/status")["writer"]``."""
        answer: dict[str, Any] = requests.get(self.rest_url + path, timeout=10).json()
        return answer

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Post JSON to a REST route; return its answer, an error's too."""
        answer: dict[str, Any] = requests.post(self.rest_url + path, json=body or {}, timeout=90).json()
        return answer

    def status(self) -> dict[str, Any]:
        """Return std_daq's status object: state, acquisition."""
        writer: dict[str, Any] = self.get("/writer/status")["writer"]
        return writer

    def wait_for(self, *states: str, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until the DAQ's or the acquisition's state is one of these; return the status."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if status["state"] in states or status["acquisition"]["state"] in states:
                return status
            assert time.monotonic() < deadline, f"still {status} after {seconds} s; log:\n{self.log()}"
            time.sleep(0.01)

    def wait_for_images(self, n_images: int, seconds: float = 30.0) -> None:
        """Wait until so many images of the run are in its file."""
        deadline = time.monotonic() + seconds
        while (n := self.status()["acquisition"]["stats"]["n_write_completed"]) < n_images:
            assert time.monotonic() < deadline, f"{n} of {n_images} after {seconds} s; log:\n{self.log()}"
            time.sleep(0.01)

    def everything_shown(self) -> tuple[Any, ...]:
        """Return what REST shows, and what is in the folder: equal after what must change nothing."""
        return (
            self.status(),
            self.get("/daq/config"),
            self.get("/daq/logs/1000"),
            sorted(self.output.rglob("*")),
        )

    def reset(self) -> None:
        """Stop a run that a test left behind, and take the first config again."""
        self.post("/writer/stop")
        if self.get("/daq/config")["config"] != self.config.as_dict():
            self.wait_for("READY")
            assert self.post("/daq/config", self.config.as_dict())["status"] == "ok"
            self.wait_for("READY")


@contextmanager
def killed_when_silent(process: subprocess.Popen[str], log: Path) -> Iterator[None]:
    """Kill a process that has said nothing new for so long, as long as the block runs."""
    over = threading.Event()

    def watch() -> None:
        said = -1
        while (now := log.stat().st_size) != said:
            said = now
            if over.wait(SILENT_S):
                return
        process.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def command_line(options: Mapping[str, Any]) -> list[str]:
    """Write options as arguments: ``{"rest_port": 5001, "fresh": True}`` → ``--rest-port 5001 --fresh``."""
    words = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, str(value)]
    return words
