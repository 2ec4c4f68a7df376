"""Cores, their clock and their governor; and whether the kernels are compiled for them."""

from __future__ import annotations

import os
from pathlib import Path

from ioc.program.doctor.finding import Finding, Findings

CPU = Path("/sys/devices/system/cpu")
CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
"""Read without a system call (vdso); others cost the receiver a microsecond at each look."""


def look_at_processor() -> Findings:
    yield _cores()
    yield _governor()
    yield _clock()
    yield _kernels()


def _cores() -> Finding:
    n_allowed, n_there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    text = f"{n_allowed} of {n_there}" if n_allowed < n_there else f"{n_there}"
    load = os.getloadavg()[0]
    text += f", load {load:.1f}"
    if n_allowed == 1:
        return Finding(
            "cores", "limits", f"{text}: receiver, writer and control share one", "give it two or more cores"
        )
    if load > n_allowed / 2:
        return Finding("cores", "limits", f"{text}: others use them", "top -o %CPU   # who is it?")
    return Finding("cores", "good", text)


def _governor() -> Finding:
    governors = {path.read_text().strip() for path in CPU.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not governors:
        return Finding("CPU governor", "good", "none: the clock is not this system's to change")
    if governors == {"performance"}:
        return Finding("CPU governor", "good", "performance")
    return Finding(
        "CPU governor",
        "limits",
        f"{', '.join(sorted(governors))}: cores are slow when a run begins",
        "cpupower frequency-set -g performance   # Debian: apt install linux-cpupower",
    )


def _clock() -> Finding:
    try:
        clock = CLOCK.read_text().strip()
    except OSError:
        return Finding("clock", "good", "not told by this system")
    if clock in FAST_CLOCKS:
        return Finding("clock", "good", clock)
    return Finding(
        "clock",
        "limits",
        f"{clock}, each look at it is a slow system call",
        f"echo tsc > {CLOCK}",
    )


def _kernels() -> Finding:
    import numba

    from daq_core.kernels.cache import has_kernels
    from daq_core.kernels.compiling import JIT  # it also chooses the folder

    folder = Path(numba.config.CACHE_DIR)
    if not JIT:
        return Finding(
            "kernels", "problem", "NUMBA_DISABLE_JIT is set: nothing is compiled", "unset NUMBA_DISABLE_JIT"
        )
    if numba.config.CACHE_DIR and has_kernels(folder):
        return Finding("kernels", "good", f"compiled, in {folder}")
    if not numba.config.CACHE_DIR:
        return Finding(
            "kernels",
            "limits",
            "cannot be kept: no folder for them is writable, so every start compiles them anew",
            "export XDG_CACHE_HOME=/var/cache/std-daq-ioc   # a folder this user may write in",
        )
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "kernels",
            "limits",
            f"cannot be kept: {existing} is not writable, so every start compiles them anew",
            "export XDG_CACHE_HOME=/var/cache/std-daq-ioc   # a folder this user may write in",
        )
    return Finding(
        "kernels", "limits", "not compiled yet: the first start takes about a minute", "std-daq-ioc compile"
    )
