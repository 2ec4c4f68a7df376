"""Servers of Channel Access whose PVs change at a steady rate: ours, and a C soft IOC with the same PVs.

Each is a process; what it serves are N numbers that all count up together.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import SOCK_DGRAM, SOCK_STREAM
from types import TracebackType
from typing import Self

from benchmarks.line_process import LineProcess
from daq_core.config import DaqConfig
from daq_core.control.daq import Daq
from ioc.access.control import AccessControl
from ioc.channel_access.server import Server
from ioc.commands.commands import Commands
from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports
from ioc.pvs.alarms import NO_ALARM
from ioc.pvs.row import number
from ioc.records.record_kinds import record_of


@dataclass(frozen=True)
class Report:
    """What our server has done so far."""

    n_posted: int  # updates of each PV
    n_clients: int
    n_dropped: int
    n_stalled: int


class CountingServer(LineProcess):
    """A process with our server in it: ``with CountingServer("X:", 300, 15.0) as server: …``."""

    def __init__(self, prefix: str, n_pvs: int, rate_hz: float) -> None:
        self.ca_port = free_ports(2, SOCK_STREAM, SOCK_DGRAM)
        self.names = names(prefix, n_pvs)
        self._arguments = [prefix, str(self.ca_port), str(n_pvs), str(rate_hz)]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.ca_servers", *self._arguments]
        self._start(command, os.environ | channel_access_environment(self.ca_port))
        self.report()
        return self

    def report(self) -> Report:
        return self._say("report")

    def pause(self) -> Report:
        """Change no PV any more."""
        return self._say("pause")

    def resume(self) -> Report:
        return self._say("resume")

    def _say(self, what: str) -> Report:
        return Report(**json.loads(self._ask(what)))


class CIoc:
    """A C soft IOC with a database; `macros` as for softIoc."""

    def __init__(self, database: str, prefix: str) -> None:
        self.ca_port = free_ports(2, SOCK_STREAM, SOCK_DGRAM)
        self._database, self._prefix = database, prefix

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="std-daq-benchmarks-")
        file = Path(self._folder.name) / "pvs.db"
        file.write_text(self._database)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "epicscorelibs.ioc", "-m", f"P={self._prefix}", "-d", str(file)],
            env=os.environ
            | channel_access_environment(self.ca_port)
            | {"EPICS_CAS_INTF_ADDR_LIST": LOOPBACK},
            stdin=subprocess.PIPE,  # it ends when this closes
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        return self._process.pid


def counting_database(n_pvs: int) -> str:
    """Return a database of the same numbers for a C IOC, ten times a second each."""
    record = (
        'record(calc, "{0}") {{ field(SCAN, ".1 second") field(INPA, "{0}.VAL NPP") field(CALC, "A+1") }}\n'
    )
    return "".join(record.format(name) for name in names("$(P)", n_pvs))


def names(prefix: str, n_pvs: int) -> list[str]:
    return [f"{prefix}DAQ:N{n}" for n in range(n_pvs)]


# ---- the process of ours


async def serve(prefix: str, port: int, n_pvs: int, rate_hz: float) -> None:
    rows = [number(f"N{n}", "", 0, lambda view: None, "Counts") for n in range(n_pvs)]
    records = {row.pv(prefix): record_of(row, prefix) for row in rows}
    commands = Commands(Daq(CONFIG), lambda: None, AccessControl(), lambda text: None)
    n_posted, running = 0, True

    def complain(where: str, fault: BaseException) -> None:
        raise SystemExit(f"{where}: {fault!r}")

    async with Server(records, commands, bind=LOOPBACK, port=port, report=complain) as server:

        async def answer() -> None:
            nonlocal running
            while line := await asyncio.to_thread(sys.stdin.readline):
                running = {"pause": False, "resume": True}.get(line.strip(), running)
                counts = server.counts
                report = Report(n_posted, len(server.circuits), counts.n_dropped, counts.n_stalled)
                print(json.dumps(asdict(report)), flush=True)

        answering = asyncio.create_task(answer())
        due = time.monotonic()
        while not answering.done():
            due = max(due + 1 / rate_hz, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            if running:
                n_posted, now = n_posted + 1, time.time()
                for record in records.values():
                    record.post(n_posted, NO_ALARM, now)


CONFIG = DaqConfig.parse(
    {
        "detector_name": "none",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": 512,
        "image_pixel_width": 1024,
        "n_modules": 1,
        "start_udp_port": 50_000,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 1023, 511]},
    }
)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
