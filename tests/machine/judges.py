"""What a test may lack on somebody's machine: root, mounts, strace, a browser …

A test that finds its judge absent calls :func:`absent`: it is skipped then, with the reason and
what installs the judge. ``STD_DAQ_REQUIRE=mounts,strace`` names the judges that may not be absent:
without one of those the test fails. ``make night`` names all that it needs.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

JUDGES = {
    "cgroups": "run the tests as root, where control groups count memory",
    "hdf5": "on Debian: apt-get install pkg-config libhdf5-dev",
    "locales": "on Debian: apt-get install locales",
    "mounts": "run the tests as root, where file systems may be mounted",
    "netns": "run the tests as root, with iproute2 and util-linux installed",
    "real-time": "run the tests as root, where real-time priorities are granted",
    "recordings": "put the folder shared/recordings beside the clone",
    "root": "run the tests as root",
    "sockets": "raise net.core.rmem_max, or run the tests as root",
    "strace": "on Debian: apt-get install strace; and ptrace has to be allowed",
    "userns": "allow user namespaces (user.max_user_namespaces); on Debian: apt-get install util-linux",
    "users": "run the tests as root; on Debian: apt-get install passwd",
}
"""Each judge, and how a machine comes to have it."""


def required() -> set[str]:
    """Return the judges that ``STD_DAQ_REQUIRE`` names; ValueError where it names one that there is not."""
    names = {name.strip() for name in os.environ.get("STD_DAQ_REQUIRE", "").split(",") if name.strip()}
    if unknown := names - set(JUDGES):
        raise ValueError(
            f"STD_DAQ_REQUIRE: no such judge: {', '.join(sorted(unknown))}; there are: {', '.join(JUDGES)}"
        )
    return names


def absent(judge: str, why: str) -> NoReturn:
    """Skip the test that calls this, because a judge is absent; fail it where that judge is required."""
    how = JUDGES[judge]
    if judge in required():
        pytest.fail(f"STD_DAQ_REQUIRE names {judge}, which is absent: {why} ({how})", pytrace=False)
    pytest.skip(f"{judge} is not to be had here: {why} ({how})")
