"""What this user may do: whose files it can write, large buffers, real-time priority, open files."""

from __future__ import annotations

import os
import resource

from daq_core.config import DaqConfig
from daq_core.errors import InvalidRequest
from daq_core.linux.sockets import BUFFER_BYTES
from daq_core.linux.user import find_owner, user_name
from ioc.program.doctor.finding import Finding, Findings

CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_SYS_NICE = 5, 6, 7, 12, 23
"""Source: linux/include/uapi/linux/capability.h."""
SWITCH = {"CAP_SETUID": CAP_SETUID, "CAP_SETGID": CAP_SETGID, "CAP_KILL": CAP_KILL}
UNIT = "systemctl edit std-daq-ioc   # [Service] "
ENOUGH_FILES = 1024


def look_at_rights(config: DaqConfig) -> Findings:
    has = capabilities()
    yield _file_owner(config, has)
    yield _net_admin(has)
    yield _real_time()
    yield _open_files()


def capabilities() -> int:
    """Return the effective capabilities of this process, a bit each (proc(5))."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _file_owner(config: DaqConfig, has: int) -> Finding:
    subject, me = "file owner", user_name(os.geteuid())
    try:
        owner = find_owner(config.writer_user_id)
    except InvalidRequest as refused:
        return Finding(
            subject, "problem", str(refused), "std-daq-ioc config writer_user_id=0   # or start it as root"
        )
    if owner.uid == os.geteuid():
        if owner.uid == 0:
            return Finding(
                subject, "limits", "root: writer_user_id is not set", "std-daq-ioc config writer_user_id=UID"
            )
        return Finding(subject, "good", f"{me}, as the service")
    lacking = [name for name, bit in SWITCH.items() if not has >> bit & 1]
    if lacking:
        return Finding(
            subject,
            "problem",
            f"writing as {user_name(owner.uid)} needs {', '.join(lacking)}",
            f"{UNIT}CapabilityBoundingSet={' '.join(SWITCH)}",
        )
    if not _is_mapped(owner.uid):
        return Finding(
            subject,
            "problem",
            f"user {owner.uid} does not exist in this user namespace (/proc/self/uid_map)",
            "std-daq-ioc config writer_user_id=0   # or start it outside of the namespace",
        )
    if owner.warning:
        return Finding(
            subject, "limits", owner.warning, f"getent passwd {owner.uid}   # or see --writer-group"
        )
    return Finding(subject, "good", f"{user_name(owner.uid)}, by {me}")


def _is_mapped(uid: int) -> bool:
    """Tell whether a user can be in this user namespace (user_namespaces(7))."""
    with open("/proc/self/uid_map") as lines:
        spans = [tuple(map(int, line.split())) for line in lines]
    return any(first <= uid < first + n for first, _, n in spans)


def _net_admin(has: int) -> Finding:
    if has >> CAP_NET_ADMIN & 1:
        return Finding("CAP_NET_ADMIN", "good", "granted: socket buffers are as large as asked for")
    with open("/proc/sys/net/core/rmem_max") as number:
        enough = int(number.read()) >= BUFFER_BYTES
    if enough:
        return Finding("CAP_NET_ADMIN", "good", "not granted, nor needed: net.core.rmem_max is large enough")
    return Finding(
        "CAP_NET_ADMIN",
        "limits",
        "not granted: socket buffers end at net.core.rmem_max",
        f"{UNIT}AmbientCapabilities=CAP_NET_ADMIN",
    )


def _real_time() -> Finding:
    """Take the priority that control asks for, and give it back."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        os.sched_setscheduler(0, *before)
    except PermissionError:
        return Finding(
            "CAP_SYS_NICE",
            "limits",
            "no real-time priority: PVs and REST answer later while the data path is at its limit",
            f"echo '{user_name(os.geteuid())} - rtprio 1' > /etc/security/limits.d/std-daq.conf",
        )
    return Finding("CAP_SYS_NICE", "good", "control may have real-time priority")


def _open_files() -> Finding:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < ENOUGH_FILES:
        return Finding("open files", "limits", f"{most}: clients and ports need more", "ulimit -n 65536")
    return Finding("open files", "good", f"{most}")
