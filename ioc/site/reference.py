"""The page of the docs that lists every PV: ``docs/reference/pvs.md``."""

from __future__ import annotations

from ioc.pvs.daq import PVS
from ioc.pvs.row import Row

HEAD = """\
# Process variables

<!-- Made from ioc/pvs/ by `std-daq-ioc db`: change the table, not this page. -->

Names follow the prefix given to `std-daq-ioc serve --prefix`. `X_RBV` shows what is
true, `X` what was asked for. A text of `n` bytes is a CHAR waveform in UTF-8
(`caget -S`, `caput -S`). States in alarm have their severity behind a colon. Commands
act on a put of 1 or of their second state.

Access is the field ASG, the group that the rules of an access file are for: RO can only be
read, RW are setpoints, CMD commands, ADM is for experts. Without a file all may read, and
clients on the service's machine may put; see [who may put](../how-to/decide-who-may-put.md).

In alarm are the states with a severity, and what the last column says: MINOR and MAJOR from that value
on; `down` is INVALID/COMM with the last value while the receiver is down; `by rule` is explained under
[alarms](../how-to/drive-from-epics.md#alarms). What is not known yet is INVALID/UDF.

| PV | record | value | access | meaning | in alarm |
|---|---|---|---|---|---|
"""


def reference(prefix: str) -> str:
    """Return the whole text of the page; the names are without a prefix."""
    return HEAD + "".join(map(_line, PVS))


def _line(row: Row) -> str:
    states = " ".join(
        f"`{choice}:{severity}`" if severity else f"`{choice}`"
        for choice, severity in zip(row.choices, row.severities, strict=True)
    )
    value = states or row.egu
    if row.record == "waveform":
        value = f"text of {row.nelm} bytes" if row.ftvl == "CHAR" else f"up to {row.nelm} integers {row.egu}"
    return (
        f"| `{row.pv('')}` | {row.record} | {value.strip()} | {row.access} | {row.description} "
        f"| {_alarms(row)} |\n"
    )


def _alarms(row: Row) -> str:
    """Say in a few words when a PV is in alarm, apart from its states."""
    limits = row.limits
    ends = (
        ("MAJOR ≤", limits.lolo),
        ("MINOR ≤", limits.low),
        ("MINOR ≥", limits.high),
        ("MAJOR ≥", limits.hihi),
    )
    words = [f"{severity} {limit:.10g}" for severity, limit in ends if limit is not None]
    if row.rule is not None:
        words.append("by rule")
    if row.needs_receiver:
        words.append("down")
    return ", ".join(words)
