"""The README's five minutes, word for word: a clone, Debian's tools, a bare environment, a slow reader.

The commands are typed into shells that know no environment of this checkout, in network namespaces
of their own, so that the ports which the README names are free whatever else runs here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.page import NOT_RUN, ROOT, UNTIL_THE_END, Block, blocks_of
from tests.machine.judges import absent

PAUSE_S = 60.0
BLOCK_WITHIN_S = 120.0
TAKEN = "FINISHED Completed."
TOOLS = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class SlowReader:
    """Somebody with a clone and nothing else, who reads a minute before each command."""

    def __init__(self, clone: Path, home: Path) -> None:
        self._clone, self._home = clone, home
        self._open: list[subprocess.Popen[str]] = []
        self._namespace = subprocess.Popen(  # holds the namespace; its loopback is up when it prints
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._namespace.stdout is not None
        if self._namespace.stdout.readline() != "up\n":
            absent("netns", "no network namespace can be made")

    def types(self, code: str, *, alone: bool = True) -> subprocess.Popen[str]:
        """Start a block; `alone`: where the ports are the README's own, without a way out."""
        enter = ["nsenter", "--net", "--target", str(self._namespace.pid)] if alone else []
        shell = subprocess.Popen(
            [*enter, "bash", "-eo", "pipefail", "-c", code],
            cwd=self._clone,
            env={"PATH": TOOLS, "HOME": str(self._home), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._open.append(shell)
        return shell

    def sees(self, code: str, *, alone: bool = True) -> str:
        """Run a block to its end, which has to be a good one; what it printed."""
        shell = self.types(code, alone=alone)
        printed, _ = shell.communicate(timeout=BLOCK_WITHIN_S if alone else 900)
        assert shell.returncode == 0, f"{code}\n{printed}"
        return printed

    def close(self) -> None:
        for shell in reversed(self._open):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            assert shell.stdout is not None
            shell.stdout.close()
        self._namespace.kill()
        self._namespace.communicate()


@pytest.fixture
def reader() -> Iterator[SlowReader]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        absent("netns", "only root may make one")
    with tempfile.TemporaryDirectory(prefix="five-minutes-") as folder:
        clone, home = Path(folder) / "std-daq-ioc", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        reader = SlowReader(clone, home)
        yield reader
        reader.close()


def readme() -> list[Block]:
    return blocks_of(ROOT / "README.md")


def test_no_example_listens_where_linux_gives_out_ports_by_itself() -> None:
    """From 32768 to 60999 (net.ipv4.ip_local_port_range) any program may hold a port for a while."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*/*.md"), *ROOT.glob("examples/*")]
    named = re.compile(r'(?:start_udp_port"?[:=]\s*|tcp://[\w.*-]+:|udp port |port=)(\d{4,5})')
    for page in pages:
        for port in map(int, named.findall(page.read_text())):
            assert not 32768 <= port <= 60999, f"{page.name}: port {port}"


@pytest.mark.night
@pytest.mark.timeout(3600)
def test_the_readmes_five_minutes_work_word_for_word_with_a_minute_before_each_step(
    reader: SlowReader,
) -> None:
    reader.sees("make demo", alone=False)
    ends = []
    for block in readme():
        if block.kind == NOT_RUN:
            continue
        time.sleep(PAUSE_S)
        if block.kind == UNTIL_THE_END:
            shell = reader.types(block.code)
            if block.ready_word:
                assert shell.stdout is not None
                while block.ready_word not in (line := shell.stdout.readline()):
                    assert line, f"ended before it printed {block.ready_word}"
        else:
            ends.append(reader.sees(block.code, alone="pip install" not in block.code))
    assert sum(TAKEN in end or '"FINISHED"' in end for end in ends) >= 2, "\n".join(ends)
