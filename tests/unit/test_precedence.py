"""The control process asks to run before the data path, hands that on to nobody, and can lose it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.machine.judges import absent

needs_right = pytest.mark.skipif(
    os.geteuid() != 0, reason="SCHED_RR needs CAP_SYS_NICE: run the tests as root"
)
NOBODY = 65534

SCHEDULE = "os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority"
BEFORE = """
import logging, os, resource, subprocess, sys, threading, time
logging.basicConfig(stream=sys.stderr, level="INFO")
from ioc.service.precedence import present_precedence, take_precedence
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEFORE + program], capture_output=True, text=True, timeout=60, check=True
    )


@needs_right
def test_it_runs_with_the_lowest_real_time_priority_and_says_so() -> None:
    done = run(f"print(take_precedence()); print({SCHEDULE}); print(present_precedence())")
    if "normal" in done.stdout:
        absent("real-time", "not granted even to root")
    assert done.stdout.splitlines() == ["real-time", f"{os.SCHED_RR} 1", "real-time"]
    assert "SCHED_RR, priority 1" in done.stderr


@needs_right
def test_neither_children_nor_threads_inherit_it() -> None:
    done = run(
        f"""
take_precedence()
thread = threading.Thread(target=lambda: print({SCHEDULE})); thread.start(); thread.join()
sys.stdout.flush()
subprocess.run([sys.executable, "-c", '''import os; print({SCHEDULE}, os.nice(0))'''])
"""
    )
    assert done.stdout.splitlines() == [f"{os.SCHED_OTHER} 0", f"{os.SCHED_OTHER} 0 0"]


@needs_right
def test_a_loop_that_never_sleeps_goes_back_to_normal() -> None:
    done = run(
        f"""
take_precedence()
end = time.monotonic() + 30
while os.sched_getscheduler(0) != os.SCHED_OTHER and time.monotonic() < end:
    pass
print({SCHEDULE})
"""
    )
    assert done.stdout.splitlines() == [f"{os.SCHED_OTHER} 0"]
    assert "goes back to normal" in done.stderr


def test_a_refusal_is_a_warning_that_names_the_cure() -> None:
    done = run(
        f"""
for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
    resource.setrlimit(limit, (0, 0))
if os.geteuid() == 0:
    os.setuid({NOBODY})
print(take_precedence()); print({SCHEDULE})
"""
    )
    assert done.stdout.splitlines() == ["normal", f"{os.SCHED_OTHER} 0"]
    assert "doctor" in done.stderr


@needs_right
def test_where_only_nice_is_granted_it_takes_that_and_children_do_not_inherit_it() -> None:
    """The kernel here grants root both, so the refusal of the first is played."""
    done = run(
        """
real = os.sched_setscheduler
def refuse(pid, policy, param):
    if policy & os.SCHED_RR:
        raise PermissionError
    real(pid, policy, param)
os.sched_setscheduler = refuse
print(take_precedence(), os.nice(0), present_precedence())
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"])
"""
    )
    assert done.stdout.splitlines() == ["nice -10 nice", "0"]
