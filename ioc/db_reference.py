"""The page of the docs that lists every PV: ``docs/reference/pvs.md``."""

from __future__ import annotations

from ioc.pvs import PVS
from ioc.rows import Row

HEAD = """\
# Process variables

<!-- Made from ioc/pvs.py by `std-daq-ioc db`: change the table, not this page. -->

Names follow the prefix given to `std-daq-ioc serve --prefix`. `X_RBV` shows what is
true, `X` what was asked for. A text of `n` bytes is a CHAR waveform in UTF-8
(`caget -S`, `caput -S`). States in alarm have their severity behind a colon. Commands
act on a put of 1 or of their second state.

Access is the field ASG, the group that the rules of an access file are for: RO can only be
read, RW are setpoints, CMD commands, ADM is for experts. Without a file all may read, and
clients on the service's machine may put; see [who may put](../how-to/decide-who-may-put.md).

| PV | record | value | access | meaning |
|---|---|---|---|---|
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
    return f"| `{row.pv('')}` | {row.record} | {value.strip()} | {row.access} | {row.description} |\n"
