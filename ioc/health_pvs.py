"""The PVs that tell how the service itself is, one line each: ``IOC:``, with the names of iocStats.

What the machine and this process use comes from ``ioc.machine``, the rest from what the
server counts; all of it is brought up to date once a second.
"""

from __future__ import annotations

from ioc.alarms import NO_LIMITS, Limits
from ioc.rows import Row, Source, flag, number, string, text
from ioc.view import duration, iso

PATH = 1024  # bytes of a text, its end included
LINK = "Disconnected:MAJOR|Connected"
ANY_CLIENT = Limits(high=1)
REDIS_MS = Limits(high=100, hihi=1000)
LOOP_MS = Limits(high=50, hihi=500)
CLIENTS = Limits(high=150, hihi=200)


def health(
    pv: str, egu: str, precision: int, value: Source, description: str, limits: Limits = NO_LIMITS
) -> Row:
    return number(pv, egu, precision, value, description, limits=limits, macro="IOC")


HEALTH = (
    health("HEARTBEAT", "", 0, lambda v: v.ioc.heartbeat, "Counts the seconds of the IOC"),
    string("UPTIME", lambda v: duration(v.now - v.ioc.started), "Time since start", macro="IOC"),
    string("STARTTOD", lambda v: iso(v.ioc.started), "Start of the IOC, UTC", macro="IOC"),
    string("VERSION", lambda v: v.ioc.version, "Version of the IOC", macro="IOC"),
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
    health("CaStalled_RBV", "", 0, lambda v: v.ioc.n_stalled, "CA clients that stopped reading", ANY_CLIENT),
    text("LastError_RBV", PATH, lambda v: v.ioc.last_error or v.face.last_error, "Last error", macro="IOC"),
)
