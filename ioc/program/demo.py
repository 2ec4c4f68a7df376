"""The main job in front of your eyes: simulated packets → the real service → files, checked pixel by pixel.

Nothing is special-cased: the service is the program itself in a process of its
own, on free ports of loopback; the packets are UDP datagrams; and the three
runs go through REST, Channel Access and the command line as users' runs do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import redis
from rich.console import Console

from daq_core.amounts import counted
from daq_core.config import DaqConfig
from daq_core.errors import DaqError
from daq_core.files import places
from daq_core.kernels.progress import COMPILING
from daq_core.simulating.simulator import Simulator
from ioc.program.client.service_client import ServiceClient
from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports
from ioc.program.progress import shown_progress

PREFIX = "DEMO:"
SILENT_S = 90.0  # the service says every 10 s how far it is with compiling itself; then it hangs
FIRST_IMAGE_WITHIN_S = 5.0
COMPILED = re.compile(rf"{COMPILING}: (\d+) of (\d+) kernels?")
STREAMS = ("daq:status", "daq:writer_status", "daq:config", "daq:log", "daq:stat")

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(DaqError):
    """Something differed from what it must be."""


@dataclass(frozen=True)
class Addresses:
    """Where the demo's service answers."""

    rest_port: int
    redis_port: int
    ca_port: int

    @property
    def rest_url(self) -> str:
        return f"http://{LOOPBACK}:{self.rest_port}"


Take = Callable[[Addresses, Path, int], str]
"""Takes a run (service, file, number of images) to its end and returns what was said of it."""


def run_demo(output: Path | None, *, keep: bool, n_images: int, rate_hz: float) -> None:
    """Show the main job; DemoFailed says what differed."""
    folder = _make_folder(output)
    try:
        _show(folder, n_images, rate_hz)
    finally:
        if not keep:
            shutil.rmtree(folder)
    if keep:
        console.print(f"   The files, the config and the service's log are in {folder}")


def _show(folder: Path, n_images: int, rate_hz: float) -> None:
    config = DaqConfig.parse(jungfrau(start_udp_port=free_ports(2, socket.SOCK_DGRAM)))
    config_file = folder / "jungfrau.json"
    config_file.write_text(json.dumps(config.as_dict(), indent=1), encoding="utf-8")
    addresses = Addresses(
        rest_port=free_ports(),
        redis_port=free_ports(),
        ca_port=free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM),
    )
    os.environ.update(channel_access_environment(addresses.ca_port))  # for caproto's client, too

    say("The detector", f"Jungfrau of 2 modules, 1024 × 1024 pixels, {rate_hz:g} images a second")
    simulator = Simulator(config, host=LOOPBACK)
    say("The service", "receiver, writer, Channel Access, REST, Redis (compiles itself on its first start)")
    files = {face: folder / f"run_by_{face.replace(' ', '_').lower()}.h5" for face in TAKES}
    with running_service(config_file, addresses, folder) as ready_at, streaming(simulator, rate_hz):
        say("Three runs", "while the detector streams on")
        first_image_at = {
            face: watch(face, take, addresses, files[face], n_images) for face, take in TAKES.items()
        }
        check_first_image(min(first_image_at.values()) - ready_at)
        say("Redis", "what it was told")
        print_streams(addresses.redis_port)
    say("The files", "every pixel against what the simulator sent")
    for file in files.values():
        check_file(file, simulator, n_images)
    say("All is well", "")


def say(what: str, more: str) -> None:
    console.print(f"[bold]{what}[/]{': ' if more else '.'}{more}")


def _make_folder(output: Path | None) -> Path:
    if output is None:
        return Path(tempfile.mkdtemp(prefix="std-daq-demo-"))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoFailed(f"{output} cannot be made: {error.strerror}.") from None
    if any(output.iterdir()):
        raise DemoFailed(f"{output} is not empty: give --output a new folder.")
    return output.resolve()


def jungfrau(start_udp_port: int) -> dict[str, Any]:
    """Return the config of two Jungfrau modules, one above the other."""
    return {
        "detector_name": "jungfrau",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "n_modules": 2,
        "image_pixel_height": 1024,
        "image_pixel_width": 1024,
        "start_udp_port": start_udp_port,
        "writer_user_id": -1,
        "module_positions": {"0": [0, 0, 1023, 511], "1": [0, 512, 1023, 1023]},
    }


@contextmanager
def running_service(config_file: Path, addresses: Addresses, folder: Path) -> Iterator[float]:
    """Run ``std-daq-ioc serve``; give the time (monotonic) when it was READY."""
    command = [sys.executable, "-m", "ioc", "serve", "--config", config_file, "--prefix", PREFIX]
    command += ["--rest-port", addresses.rest_port, "--redis-port", addresses.redis_port]
    command += ["--ca-port", addresses.ca_port, "--udp-host", LOOPBACK, "--output-root", folder]
    log_file = folder / "service.log"
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            line = first_line(process, log_file)
            if not line.startswith("READY"):
                raise DemoFailed(f"The service did not start; the end of {log_file}: {_last_line(log_file)}")
            console.print("   " + line)
            yield time.monotonic()
        finally:
            process.send_signal(signal.SIGTERM)
        if process.wait(timeout=15) != 0:
            raise DemoFailed(f"The service ended with exit code {process.returncode}; see {log_file}")


def first_line(process: subprocess.Popen[str], log_file: Path) -> str:
    """Wait for the service's first line; meanwhile show how far it is with compiling itself.

    There is no limit by the clock: a service that says nothing any more is killed, and has no line.
    """
    assert process.stdout is not None
    said, said_at_s = "", time.monotonic()
    with shown_progress("   starting", None) as show, ThreadPoolExecutor(1) as one:
        reading = one.submit(process.stdout.readline)
        while not wait([reading], timeout=0.2).done:
            now = log_file.read_text(encoding="utf-8", errors="replace")
            if now != said:
                said, said_at_s = now, time.monotonic()
            elif time.monotonic() - said_at_s > SILENT_S:
                process.kill()
            if told := COMPILED.findall(said):
                show(int(told[-1][0]), "   compiling", int(told[-1][1]))
    return reading.result().rstrip()


@contextmanager
def streaming(simulator: Simulator, rate_hz: float) -> Iterator[None]:
    """Let the detector send images, with rising ids, as long as the block runs."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as one:
        sending = one.submit(simulator.send, 0, rate_hz, stop=stop)
        try:
            yield
        finally:
            stop.set()
    sending.result()


def watch(face: str, take: Take, addresses: Addresses, file: Path, n_images: int) -> float:
    """Take a run and show its progress; return the time (monotonic) its first image was seen written."""
    service, first_image_at = ServiceClient(addresses.rest_url), float("inf")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as one, shown_progress(f"   {face:<14}", n_images) as show:
        taking = one.submit(take, addresses, file, n_images)
        while not taking.done():
            run = service.get("/writer/status", "writer")["acquisition"]
            n_written = run["stats"]["n_write_completed"] if run["info"]["output_file"] == str(file) else 0
            show(n_written)
            if n_written:
                first_image_at = min(first_image_at, time.monotonic())
            time.sleep(0.02)
        said = taking.result()
    console.print(
        f"   {face:<14} {file.name}: {counted(n_images, 'image')} in {time.monotonic() - began:.1f} s, {said}"
    )
    return min(first_image_at, time.monotonic())


def by_rest(addresses: Addresses, file: Path, n_images: int) -> str:
    """Take a run with the calls of std_daq_client."""
    service = ServiceClient(addresses.rest_url)
    service.post("/writer/write_async", "writer", {"output_file": str(file), "n_images": n_images})
    while (status := service.get("/writer/status", "writer"))["state"] == "WRITING":
        time.sleep(0.05)
    return f"acquisition {status['acquisition']['state']}: {status['acquisition']['message']}"


def by_channel_access(addresses: Addresses, file: Path, n_images: int) -> str:
    """Take a run as ``caput -c DEMO:DAQ:WriteSync 1`` does: the put completes when the file is closed."""
    from caproto import ChannelType
    from caproto.threading.client import Context

    with Context() as context:
        names = ("OutputFile", "NImages", "WriteSync", "AcqState_RBV")
        pvs = context.get_pvs(*(f"{PREFIX}DAQ:{name}" for name in names), timeout=10)
        output_file, number, write, state = pvs
        output_file.write(str(file).encode() + b"\0", timeout=10)
        number.write(n_images, timeout=10)
        write.write(1, wait=True, timeout=600)
        (name,) = state.read(data_type=ChannelType.STRING, timeout=10).data
        return f"put completed, AcqState_RBV {name.decode()}"


def by_command_line(addresses: Addresses, file: Path, n_images: int) -> str:
    """Take a run with ``std-daq-ioc start``."""
    done = subprocess.run(
        [sys.executable, "-m", "ioc", "start", str(file), str(n_images), "--json"],
        env={**os.environ, "STD_DAQ_API_URL": addresses.rest_url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoFailed(f"std-daq-ioc start ended with exit code {done.returncode}: {done.stderr.strip()}")
    return f"exit code 0: {json.loads(done.stdout)['acquisition']['message']}"


TAKES: dict[str, Take] = {
    "REST": by_rest,
    "Channel Access": by_channel_access,
    "Command line": by_command_line,
}


def check_first_image(seconds: float) -> None:
    console.print(f"   first image on disk {seconds:.1f} s after READY")
    if seconds > FIRST_IMAGE_WITHIN_S:
        raise DemoFailed(f"The first image took {seconds:.1f} s, more than {FIRST_IMAGE_WITHIN_S:.0f} s.")


def print_streams(redis_port: int) -> None:
    """Print how many entries each stream has, and the newest of ``daq:status``."""
    with redis.Redis(LOOPBACK, redis_port) as server:
        counts = {stream: server.xlen(stream) for stream in STREAMS}
        console.print("   entries: " + ", ".join(f"{stream} {n}" for stream, n in counts.items()))
        if not all(counts.values()):
            raise DemoFailed("A Redis stream is empty.")
        ((_, newest),) = server.xrevrange("daq:status", count=1)
        console.print("   newest status: " + newest[b"json"].decode())


def check_file(file: Path, simulator: Simulator, n_images: int) -> None:
    """Compare a file with what the simulator sent under the image ids that the file names."""
    with h5py.File(file) as opened:
        data, ids = opened[places.IMAGES], opened[places.IMAGE_IDS][:]
        if not len(data) == len(ids) == len(np.unique(ids)) == n_images:
            raise DemoFailed(
                f"{file}: {len(data)} images with {len(np.unique(ids))} ids, {n_images} were asked for."
            )
        if opened[places.STATUS][:].any():
            raise DemoFailed(f"{file}: {np.count_nonzero(opened[places.STATUS])} images are not good.")
        with shown_progress(file.name, n_images) as show:
            for i, image_id in enumerate(ids.tolist()):
                if not np.array_equal(data[i], simulator.image(image_id)):
                    raise DemoFailed(f"{file}: image {i}, id {image_id}, differs from what was sent.")
                show(i + 1)
        n_pixels = data.size
    console.print(
        f"   {file.name}: ids {ids[0]} to {ids[-1]}, {n_pixels / 1e6:.0f} million pixels, all equal"
    )


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "(empty)"
