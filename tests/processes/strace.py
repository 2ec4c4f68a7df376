"""Faults of the disk at a chosen system call of a real writer: strace's injection (strace(1), "Tampering").

``with strace_of(pid, "pwrite64:error=EIO:when=3"):`` makes the third write of a
running process fail, as a disk would. Debian: ``apt install strace``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WITHIN_S = 20.0
NOTED_S = 5.0


class Trace:
    """What strace did to a process."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.hit = False  # a fault was injected; known at the end

    def read(self) -> None:
        text = self.output.read_text(errors="replace")
        self.hit = any(sign in text for sign in ("INJECTED", "DELAYED", "killed by SIGKILL"))


def why_not() -> str:
    """Return why no process can be traced here, "" when one can."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt install strace)"
    victim = subprocess.Popen(["sleep", "60"])
    try:
        with strace_of(victim.pid, "pwrite64:error=EIO"):
            return ""
    except RuntimeError as error:
        return f"strace cannot trace here: {error}"
    finally:
        victim.kill()
        victim.wait()


@contextmanager
def strace_of(pid: int, *injections: str, children: bool = False) -> Iterator[Trace]:
    """Inject faults into a process while the body runs; with `children` into those too that it forks.

    A process that ends meanwhile is no error.

    The process stands still while strace attaches itself, so that calls are counted from this moment.
    """
    with tempfile.TemporaryDirectory(prefix="strace-") as folder:
        trace = Trace(Path(folder) / "trace")
        calls = ",".join({injection.partition(":")[0]: None for injection in injections})
        os.kill(pid, signal.SIGSTOP)
        tracer = subprocess.Popen(
            ["strace", "-p", str(pid), "-o", trace.output, "-e", f"trace={calls}"]
            + ["-f"] * children
            + [word for injection in injections for word in ("-e", f"inject={injection}")],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _wait_for_tracer(pid, tracer)
            os.kill(pid, signal.SIGCONT)
            yield trace
        finally:
            with suppress(subprocess.TimeoutExpired):
                if _state(pid) in "ZX":  # the tracer notes it, and ends when there is nobody else
                    tracer.wait(NOTED_S)
            with suppress(ProcessLookupError):
                tracer.terminate()
            tracer.communicate(timeout=WITHIN_S)
            with suppress(FileNotFoundError):
                trace.read()


def _wait_for_tracer(pid: int, tracer: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            os.kill(pid, signal.SIGCONT)
            tracer.kill()
            raise RuntimeError(tracer.communicate()[1].strip() or "no answer")
        time.sleep(0.001)


def is_stopped(pid: int) -> bool:
    """Tell whether a process stands still by a signal; one that is gone does not."""
    return _state(pid) in "Tt"


def _state(pid: int) -> str:
    """Return the state of a process, a letter of proc_pid_stat(5); X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
