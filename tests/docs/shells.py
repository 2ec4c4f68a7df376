"""The shells in which a reader would try a page: real processes, in a folder and on ports of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports
from tests.docs.page import BESIDE, NOT_RUN, UNTIL_THE_END, Block, matches

BLOCK_WITHIN_S = 90.0
SILENT_S = 90.0  # the first service of a fresh clone compiles the kernels, and says how far it is
END_WITHIN_S = 20.0


class Running:
    """A block that was started; its output goes to files, so that what it leaves running holds nothing up."""

    def __init__(self, block: Block, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.block = block
        self._out, self._err = folder / f"line{block.line}.out", folder / f"line{block.line}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a process group, to end what it started too
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    def wait_for(self, word: str) -> None:
        n_said, said_at_s = 0, time.monotonic()
        while word not in self.output:
            assert self.process.poll() is None, self.said(f"ended before it printed {word}")
            if (now := self._err.stat().st_size) != n_said:
                n_said, said_at_s = now, time.monotonic()
            assert time.monotonic() - said_at_s < SILENT_S, self.said(f"did not print {word}")
            time.sleep(0.05)

    def check_end(self) -> None:
        try:
            code = self.process.wait(BLOCK_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.said(f"runs for more than {BLOCK_WITHIN_S:.0f} s")) from None
        assert code == 0, self.said(f"ended with exit code {code}")

    def check_output(self, expected: str | None) -> None:
        if expected is not None:
            assert matches(self.output, expected), self.said(f"printed something else than\n{expected}\n")

    def end(self) -> None:
        """End the block and what it started in the background."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(self.said("did not end when it was told to")) from None

    def said(self, what: str) -> str:
        return (
            f"the block at line {self.block.line} {what}; stdout:\n{self.output}\n"
            f"stderr:\n{self._err.read_text()}"
        )


class Shells:
    """Usage: ``with Shells(folder) as shells: shells.run(block)``.

    Pages name the default ports and files in /tmp. Commands get other ports from
    the environment; where a page writes a port or /tmp/ out, it is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []
        self._beside: list[Running] = []
        rest, redis, ca = free_ports(), free_ports(), free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        udp = free_ports(2, socket.SOCK_DGRAM)
        self._instead = {"5000": rest, "6379": redis, "5064": ca, "30100": udp, "30101": udp + 1}
        binaries = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            **channel_access_environment(ca),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "STD_DAQ_API_URL": f"http://{LOOPBACK}:{rest}",
            "STD_DAQ_REST_PORT": str(rest),
            "STD_DAQ_REDIS_PORT": str(redis),
            "STD_DAQ_CA_PORT": str(ca),
            "STD_DAQ_UDP_HOST": LOOPBACK,
        }
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(binaries)

    def run(self, block: Block) -> None:
        """Run a block as its page says, and compare what it prints with what the page says."""
        if block.kind == NOT_RUN:
            return
        running = self._start(block)
        if block.kind == UNTIL_THE_END:
            if block.ready_word:
                running.wait_for(block.ready_word)
                running.check_output(self._here(block.prints))
        elif block.kind == BESIDE:
            self._beside.append(running)
        else:
            running.check_end()
            running.check_output(self._here(block.prints))
            while self._beside:
                other = self._beside.pop()
                other.check_end()
                other.check_output(self._here(other.block.prints))

    def _start(self, block: Block) -> Running:
        shell = ["bash", "-eo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        code = self._here(block.code) or ""
        running = Running(block, [*shell, code], self.folder, self._environment)
        self._running.append(running)
        return running

    def _here(self, text: str | None) -> str | None:
        """Put the test's ports and folder in the place of the default ones."""
        if text is None:
            return None
        ports = "|".join(self._instead)
        moved = re.sub(rf"\b({ports})\b", lambda port: str(self._instead[port[0]]), text)
        return moved.replace("/tmp/", f"{self.folder}/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._running:
            self._running.pop().end()  # the last first: the service outlives its clients
