"""The PVs that tell how the service itself is, one line each: ``IOC:``, with the names of iocStats.

What the machine and this process use comes from ``ioc.service.watch``, the rest from what the
server counts; all of it is brought up to date once a second.
"""

from __future__ import annotations

from ioc.commands.commands import Commands
from ioc.pvs.alarms import NO_LIMITS, Limits
from ioc.pvs.row import Row, Source, command, enum, flag, for_experts, number, string, text
from ioc.pvs.view import duration, iso

PATH, FOLDER = 1024, 256  # bytes of a text, its end included
LINK = "Disconnected:MAJOR|Connected"
ANY_CLIENT = Limits(high=1)
REDIS_MS = Limits(high=100, hihi=1000)
LOOP_MS = Limits(high=50, hihi=500)
CLIENTS = Limits(high=150, hihi=200)
SYSTEM_PERCENT = Limits(high=80, hihi=95)
IOC_PERCENT = Limits(high=70, hihi=90)
FREE_DESCRIPTORS = Limits(low=20, lolo=5)
SAVES = "OK|Warning:MINOR|Error:MAJOR"


def health(
    pv: str, egu: str, precision: int, value: Source, description: str, limits: Limits = NO_LIMITS
) -> Row:
    return number(pv, egu, precision, value, description, limits=limits, macro="IOC")


def words(pv: str, value: Source, description: str) -> Row:
    return string(pv, value, description, macro="IOC")


PRECEDENCES = "normal|nice|real-time"

MACHINE = (
    health("SYS_CPU_LOAD", "%", 0, lambda v: v.usage.system_cpu_percent, "All processors", SYSTEM_PERCENT),
    health("IOC_CPU_LOAD", "%", 0, lambda v: v.usage.ioc_cpu_percent, "IOC, of one processor", IOC_PERCENT),
    health("CPU_CNT", "", 0, lambda v: v.machine.n_cpus, "Processors of the machine"),
    health("MEM_USED", "byte", 0, lambda v: v.usage.ioc_bytes, "Memory the IOC has"),
    health("MEM_FREE", "byte", 0, lambda v: v.usage.free_bytes, "Memory programs can still get"),
    health("MEM_MAX", "byte", 0, lambda v: v.usage.total_bytes, "Memory of machine or control group"),
    health("FD_CNT", "", 0, lambda v: v.usage.n_descriptors, "File descriptors the IOC has open"),
    health("FD_MAX", "", 0, lambda v: v.usage.max_descriptors, "File descriptors it may have"),
    health("FD_FREE", "", 0, lambda v: v.usage.free_descriptors, "Descriptors left", FREE_DESCRIPTORS),
    words("EPICS_VERS", lambda v: v.machine.channel_access, "Library of Channel Access"),
    words("KERNEL_VERS", lambda v: v.machine.kernel, "Operating system"),
    words("HOSTNAME", lambda v: v.machine.host, "Name of the machine"),
    words("ENGINEER", lambda v: v.ioc.engineer, "Who is responsible"),
    words("LOCATION", lambda v: v.ioc.location, "Where the detector is"),
    health("PROCESS_ID", "", 0, lambda v: v.machine.process_id, "Process of the IOC"),
    health("PARENT_ID", "", 0, lambda v: v.usage.parent_id, "Its parent: systemd is 1"),
    enum("Precedence_RBV", PRECEDENCES, lambda v: v.usage.precedence, "Over the data path", macro="IOC"),
    text("APP_DIR", FOLDER, lambda v: v.machine.folder, "Folder it was started in", macro="IOC"),
)

AUTOSAVE = (
    health("START_CNT", "", 0, lambda v: v.saves and v.saves.n_starts, "Starts with this state directory"),
    enum("SR_status", SAVES, lambda v: v.saves and v.saves.status, "Autosave of the setpoints", macro="IOC"),
    words("SR_statusStr", lambda v: v.saves and v.saves.text, "What autosave did, or why not"),
    words("SR_lastSave", lambda v: v.saves and iso(v.saves.last_save), "Last save, UTC"),
)

HEALTH = (
    health("HEARTBEAT", "", 0, lambda v: v.ioc.heartbeat, "Counts the seconds of the IOC"),
    words("UPTIME", lambda v: duration(v.now - v.ioc.started), "Time since start"),
    words("STARTTOD", lambda v: iso(v.ioc.started), "Start of the IOC, UTC"),
    words("TOD", lambda v: iso(v.now), "Time of day, UTC"),
    words("VERSION", lambda v: v.ioc.version, "Version of the IOC"),
    health("RECORD_CNT", "", 0, lambda v: v.ioc.n_records, "PVs served"),
    health("CA_CLNT_CNT", "", 0, lambda v: v.ioc.n_clients, "CA clients", CLIENTS),
    health("CA_CONN_CNT", "", 0, lambda v: v.ioc.n_channels, "CA channels"),
    flag("RedisConnected_RBV", LINK, lambda v: v.face.redis_connected, "Redis is there", macro="IOC"),
    health("RedisLatency_RBV", "ms", 1, lambda v: v.redis_latency_ms, "Time of the last publish", REDIS_MS),
    health("LoopLag_RBV", "ms", 1, lambda v: 1e3 * v.ioc.loop_lag_s, "Lag of the event loop", LOOP_MS),
    health("Reconnects_RBV", "", 0, lambda v: v.snapshot.health.restarts, "Restarts of receiver and writers"),
    health("Errors_RBV", "", 0, lambda v: v.ioc.errors + v.face.errors, "Errors since start"),
    health("UpdatesPerSec_RBV", "Hz", 1, lambda v: v.ioc.updates_per_second, "PV updates posted"),
    health("CaDropped_RBV", "", 0, lambda v: v.ioc.n_dropped, "Updates dropped for slow clients", ANY_CLIENT),
    health("CaStalled_RBV", "", 0, lambda v: v.ioc.n_stalled, "CA clients that do not read, now", ANY_CLIENT),
    text("LastError_RBV", PATH, lambda v: v.ioc.last_error or v.face.last_error, "Last error", macro="IOC"),
    *for_experts(
        command("SYSRESET", "No|Restart", Commands.restart, "End; the supervisor starts it anew", macro="IOC")
    ),
    *MACHINE,
    *AUTOSAVE,
)
