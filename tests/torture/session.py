"""One service under torture: its processes and faces, its detector, and what is seen of it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import redis

from daq_core.config import DaqConfig
from daq_core.simulating.faults import Chaos
from ioc.program.ports import LOOPBACK
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.daq.loopback import MARK, kill_all, marked_processes
from tests.processes.service import Service
from tests.system.evidence import Counters, End, Look
from tests.torture.detector import JUNGFRAU, N_PORTS, Detector
from tests.torture.files import visible_images

IDS_APART = 1_000_000  # frame numbers of two runs; none may be taken for a packet of the run before
AGREE_S = 15.0  # for all faces to show the end of a run
BACK_S = 60.0
STILL_S = 3.0  # the counters are shown once a second, and the kernel's drops counted as often
SMALL_DISK_BYTES = 32 * 2**20
PIPE_BYTES = 4096

PVS = {
    "state": "State_RBV",
    "acquisition": "AcqState_RBV",
    "message": "AcqMessage_RBV",
    "output_file": "AcqOutputFile_RBV",
    "n_images": "AcqNImages_RBV",
    "n_completed": "AcqNWriteCompleted_RBV",
    "n_incomplete": "IncompleteImages_RBV",
    "n_missing_packets": "MissingPackets_RBV",
    "n_dropped": "DroppedImages_RBV",
}
COUNTER_PVS = {
    "received": "PacketsReceived_RBV",
    "placed": "PacketsPlaced_RBV",
    "duplicate": "PacketsDuplicate_RBV",
    "late": "PacketsLate_RBV",
    "foreign": "PacketsForeign_RBV",
    "malformed": "PacketsMalformed_RBV",
    "unplaced": "PacketsUnplaced_RBV",
    "kernel_drops": "KernelDrops_RBV",
    "restarts": "IdRestarts_RBV",
}
LOSS_PVS = {
    "missing_packets": "MissingPackets_RBV",
    "incomplete_images": "IncompleteImages_RBV",
    "dropped_images": "DroppedImages_RBV",
    "other_format_images": "OtherFormat_RBV",
    "sparse_images": "SparseImages_RBV",
}


class PipedService(Service):
    """A service whose log goes through a small pipe, which somebody must read, into its file."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.log_readers: list[subprocess.Popen[bytes]] = []

    def open_log(self) -> IO[str]:
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with self.stderr.open("a") as log, open(reading, "rb") as pipe:
            self.log_readers.append(subprocess.Popen(["cat"], stdin=pipe, stdout=log))
        return open(writing, "w")

    def wait_for_readers(self) -> None:
        """Wait until all that was said is in the file: the readers end when nobody can say anything more."""
        for reader in self.log_readers:
            reader.wait()


class Session:
    """A running service, at first of two small Jungfrau modules; its files are nobody's where we are root.

    Usage: ``with Session(folder) as session: …``. `folder` has an empty folder ``output`` that the
    service may write to, one with a small file system in it where that can be mounted, and things
    beside them that must stay as they are.
    """

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.mark = f"torture-{os.getpid()}-{time.monotonic_ns()}"
        os.environ[MARK] = self.mark
        self.service = PipedService(
            folder,
            JUNGFRAU,
            {"output_root": folder / "output", "udp_sources": f"{LOOPBACK}/32", "overwrite": False},
            n_ports=N_PORTS,
        )
        self.output = self.service.output
        self.output.chmod(0o777)
        self.small_disk = self._mount_small_disk()
        self.precious = folder / "precious"
        self.precious.mkdir()
        for name in ("one.h5", "two.h5"):
            (self.precious / name).write_text(f"somebody's {name}")
        self._next_id = IDS_APART
        self._n_files = 0
        self._last_counters: Counters | None = None

    def __enter__(self) -> Session:
        self.service.start()
        self.peer = EpicsPeer(self.service.ca_port)
        self.peer.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.peer.__exit__()
        try:
            if self.service.running:
                self.service.end()
        finally:
            kill_all(self.mark)
            self.service.wait_for_readers()
            if self.small_disk is not None:
                subprocess.run(["umount", "--lazy", self.small_disk], check=False)

    def _mount_small_disk(self) -> Path | None:
        folder = self.output / "small"
        folder.mkdir()
        size = f"size={SMALL_DISK_BYTES},mode=777"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False
        )
        if mounted.returncode == 0:
            return folder
        folder.rmdir()
        return None

    # ------------------------------------------------------------ the service's processes

    @property
    def log_reader(self) -> int:
        """Return the process that reads what the service says."""
        return self.service.log_readers[-1].pid

    def pid(self, name: str, dice: random.Random | None = None) -> int | None:
        """Return the process of a name, one of several by dice: control, redis, daq-forks, daq-writer …"""
        if name == "control":
            return self.service.pid
        if name == "redis":
            return redis_of(self.service.pid)
        pids = [pid for pid, known in marked_processes(self.mark).items() if known.startswith(name)]
        return (dice or random.Random(0)).choice(sorted(pids)) if pids else None

    def restart(self) -> None:
        """Start the service again, on the same ports, after it was killed."""
        self.service.start()
        self.peer.__exit__()
        self.peer = EpicsPeer(self.service.ca_port)
        self.peer.__enter__()
        self._last_counters = None

    def recover(self) -> None:
        """Have the service ready again after a round that broke off, by another start if need be."""
        try:
            self.stop()
        except (AssertionError, OSError):
            self.service.end(signal.SIGKILL)
            self.restart()

    # ------------------------------------------------------------ orders

    def new_path(self, folder: Path | None = None) -> Path:
        self._n_files += 1
        return (folder or self.output) / f"run-{self._n_files:05}.h5"

    def start(self, face: str, path: Path, n_images: int, run_id: int) -> str:
        """Start a run by REST, CA or CLI; return "" when it was accepted, else why not."""
        if face == "CA":
            self.prepare_ca(path, n_images, run_id)
            if self.peer.put(self.service.prefix + "DAQ:WriteAsync", 1) == ECA_NORMAL:
                return ""
            return self.peer.text(self.service.prefix + "DAQ:CmdMessage_RBV") or "no answer"
        if face == "CLI":
            client = self.command_line_start(path, n_images, run_id)
            said, _ = client.communicate(timeout=60)
            return "" if client.returncode == 0 else said.strip().removeprefix("std-daq-ioc: ")
        body = {"output_file": str(path), "n_images": n_images, "run_id": run_id}
        answer = self.service.post("/writer/write_async", body)
        return "" if answer["status"] == "ok" else str(answer["message"])

    def prepare_ca(self, path: Path, n_images: int, run_id: int) -> None:
        prefix = self.service.prefix + "DAQ:"
        for name, value in (("OutputFile", str(path)), ("NImages", n_images), ("RunId", str(run_id))):
            status = self.peer.put(prefix + name, value)
            assert status == ECA_NORMAL, f"put of {name}: status {status}"

    def command_line_start(self, path: Path, n_images: int, run_id: int) -> subprocess.Popen[str]:
        words = ["start", str(path), str(n_images), "--run-id", str(run_id), "--no-wait"]
        return subprocess.Popen(
            [sys.executable, "-m", "ioc", *words, "--api-url", self.service.rest_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def configure(self, detector: Mapping[str, Any]) -> None:
        """Have the service take up another detector."""
        config = DaqConfig.parse({**detector, "start_udp_port": self.service.config.start_udp_port})
        answer = self.service.post("/daq/config", config.as_dict())
        assert answer["status"] == "ok", answer["message"]
        self.service.wait_for("READY", seconds=BACK_S)
        self.service.config = config

    def stop(self, face: str = "REST") -> float:
        """Stop, and wait until REST shows READY; return how long that took in seconds.

        Not counted is what a command of the command line takes to start.
        """
        began = time.monotonic()
        if face == "CA":
            is_done = self.peer.put(self.service.prefix + "DAQ:Stop", 1) == ECA_NORMAL
        elif face == "CLI":
            words = [sys.executable, "-m", "ioc", "stop", "--api-url", self.service.rest_url]
            is_done = subprocess.run(words, capture_output=True, timeout=60).returncode == 0
            began = time.monotonic()
        else:
            is_done = self.service.post("/writer/stop")["status"] == "ok"
        took = time.monotonic() - began
        if not is_done:
            self.service.wait_for("READY", seconds=BACK_S)
            took = time.monotonic() - began
        return took

    # ------------------------------------------------------------ the detector

    @property
    def detector_name(self) -> str:
        config = self.service.config
        ports = ", 16 ports" if config.n_udp_ports == 16 else ""
        return f"{config.detector_type} {config.bit_depth} bit{ports}"

    def detector(
        self, chaos: Chaos, rows_per_packet: int | None = None, bit_depth: int | None = None
    ) -> Detector:
        first_id, self._next_id = self._next_id, self._next_id + IDS_APART
        return Detector(self.service, chaos, first_id, rows_per_packet, bit_depth)

    # ------------------------------------------------------------ what the faces say

    def ends(self, run_id: int, path: Path) -> dict[str, End]:
        """Return how each face shows the last run, as soon as they agree that it is over; else as they do."""
        deadline = time.monotonic() + AGREE_S
        while True:
            ends = {"REST": self._rest_end(), "CA": self._ca_end(), "Redis": self._redis_end()}
            over = all(
                end.acquisition in ("FINISHED", "FAILED")
                and end.output_file == str(path)
                and end == ends["REST"]
                and end.state == "READY"
                for end in ends.values()
            )
            if over or time.monotonic() > deadline:
                return ends
            time.sleep(0.02)

    def _rest_end(self) -> End:
        return _end(self.service.status())

    def _ca_end(self) -> End:
        prefix = self.service.prefix + "DAQ:"
        return End(
            **{key: self.peer.get(prefix + pv, as_string=not key.startswith("n_")) for key, pv in PVS.items()}
        )

    def _redis_end(self) -> End:
        nothing = End("", "", "", "", 0, 0)
        with (
            suppress(redis.RedisError),
            redis.Redis(port=self.service.redis_port, socket_timeout=2) as client,
        ):
            newest = client.xrevrange("daq:status", count=1)
            return _end(json.loads(newest[0][1][b"json"])) if newest else nothing
        return nothing

    def redis_log(self, n: int) -> list[dict[str, Any]] | None:
        """Return the newest n entries of daq:log, oldest first; None when Redis does not tell."""
        with (
            suppress(redis.RedisError),
            redis.Redis(port=self.service.redis_port, socket_timeout=2) as client,
        ):
            return [json.loads(fields[b"json"]) for _, fields in client.xrevrange("daq:log", count=n)][::-1]
        return None

    def counters(self, n_sent: int | None = None) -> Counters:
        """Return the receiver's counters when they account for so many packets more, or stand still."""
        deadline = time.monotonic() + 10.0
        before = now = self._last_counters or Counters()
        changed_s = time.monotonic()
        while time.monotonic() < min(deadline, changed_s + STILL_S):
            prefix = self.service.prefix + "DAQ:"
            last, now = now, Counters(**{n: int(self.peer.get(prefix + pv)) for n, pv in COUNTER_PVS.items()})
            if now != last:
                changed_s = time.monotonic()
            explained = now.received + now.kernel_drops - before.received - before.kernel_drops
            if n_sent is not None and explained >= n_sent:
                break
            time.sleep(0.05)
        self._last_counters = now
        return now

    @property
    def last_counters(self) -> Counters | None:
        return self._last_counters

    def losses(self) -> dict[str, int]:
        prefix = self.service.prefix + "DAQ:"
        return {name: int(self.peer.get(prefix + pv)) for name, pv in LOSS_PVS.items()}

    def journal(self) -> list[dict[str, Any]]:
        """Return the runs that ended, in the order of the journal."""
        path = Path(self.service.options["state_dir"]) / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [entry for entry in map(json.loads, lines) if "begun" not in entry]

    def record_of(self, run_id: int) -> dict[str, Any] | None:
        """Wait for a run's record in the journal; None when there is none after a minute."""
        deadline = time.monotonic() + BACK_S
        while time.monotonic() < deadline:
            for entry in self.journal():
                if entry["request"]["run_id"] == run_id:
                    return entry
            time.sleep(0.05)
        return None

    @contextmanager
    def watched(self, path: Path) -> Iterator[list[Look]]:
        """Look again and again at the count of a run, and then at its file as a reader does."""
        looks: list[Look] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                with suppress(
                    Exception
                ):  # a service that stands still, or is dead; a file that is not there yet
                    status = self.service.status()["acquisition"]
                    if status["info"]["output_file"] == str(path):
                        looks.append(Look(status["stats"]["n_write_completed"], visible_images(path)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield looks
        finally:
            over.set()
            watcher.join()


def redis_of(service_pid: int) -> int | None:
    """Return the embedded Redis of a service; it writes over its own environment, where others are marked."""
    for task in Path(f"/proc/{service_pid}/task").iterdir():
        with suppress(OSError):
            for pid in map(int, (task / "children").read_text().split()):
                if Path(f"/proc/{pid}/comm").read_text().strip() in ("redis-server", "valkey-server"):
                    return pid
    return None


def _end(status: Mapping[str, Any]) -> End:
    acquisition = status["acquisition"]
    return End(
        state=status["state"],
        acquisition=acquisition["state"],
        message=acquisition["message"],
        output_file=acquisition["info"]["output_file"] or "",
        n_images=acquisition["info"]["n_images"],
        n_completed=acquisition["stats"]["n_write_completed"],
        **{
            name: acquisition["stats"][name] or 0
            for name in ("n_incomplete", "n_missing_packets", "n_dropped")
        },
    )
