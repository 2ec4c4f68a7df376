"""A C soft IOC (EPICS Base, in the wheel of epicscorelibs) with ``db/daq.template`` and an access file.

``python -m epicscorelibs.ioc`` knows no access file, so this starts the same libraries in the
same order, with one. Run as a script this module is that process: lines of stdin are commands of
its shell, it ends when stdin does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ioc.program.ports import LOOPBACK, channel_access_environment, free_ports

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "db/daq.template"


class SoftIoc:
    """Usage: ``with SoftIoc("X:", file) as soft: …``; hosts are compared by address."""

    def __init__(self, prefix: str, access_file: Path) -> None:
        self.port = free_ports(2, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        self._arguments = [prefix, str(access_file)]

    def __enter__(self) -> SoftIoc:
        environment = channel_access_environment(self.port) | {"EPICS_CAS_INTF_ADDR_LIST": LOOPBACK}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.channel_access.soft_ioc", *self._arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._wait_for("running")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=20)

    def read_access_file(self) -> None:
        """Let it read the file again, as ours does on READACF."""
        assert self._process.stdin is not None
        self._process.stdin.write("asInit\n")
        self._process.stdin.flush()
        self._wait_for("done")

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # the shell prints there, too
            if line.strip() == word:
                return
        raise AssertionError(f"the soft IOC ended with {self._process.wait()}")


def main(prefix: str, access_file: str) -> None:
    """Be the process."""
    from epicscorelibs import ioc as soft

    soft.iocshRegisterCommon()
    assert soft.dbLoadDatabase(b"base.dbd", soft.DEFAULT_DBD_PATH.encode(), None) == 0
    assert soft.registerRecordDeviceDriver(soft.pdbbase) == 0
    soft.ioc("var asCheckClientIP 1")
    soft.ioc(f'asSetFilename("{access_file}")')
    assert soft.dbLoadRecords(str(TEMPLATE).encode(), f"P={prefix}".encode()) == 0
    assert soft.iocInit() == 0
    print("\nrunning", flush=True)
    for line in sys.stdin:
        soft.ioc(line.strip())
        print("\ndone", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
