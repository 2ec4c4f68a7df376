"""Renders ``db/daq.template`` and the PV reference from the PV table.

``python -m ioc.database`` writes both anew; a test compares them with what is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ioc.fields import STATE_WORDS
from ioc.pvs import PVS
from ioc.rows import MACROS, Row

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "db" / "daq.template"
REFERENCE = ROOT / "docs" / "reference" / "pvs.md"

HEAD = """\
# Made from ioc/pvs.py by `python -m ioc.database`: change the table, not this file.
#
# The PVs that std-daq-ioc serves itself, as records of EPICS Base alone (`bo` where
# it serves a `busy`), e.g. for `softIoc -m P=X02DA: -d daq.template`.
#
"""

REFERENCE_HEAD = """\
# Process variables

<!-- Made from ioc/pvs.py by `python -m ioc.database`: change the table, not this page. -->

Names follow the prefix given to `std-daq-ioc serve --prefix`. `X_RBV` shows what is
true, `X` what was asked for. A text of `n` bytes is a CHAR waveform in UTF-8
(`caget -S`, `caput -S`). States in alarm have their severity behind a colon. A `put`
makes the PV writable; commands act on a put of 1 or of their second state.

| PV | record | value | access | meaning |
|---|---|---|---|---|
"""


def template() -> str:
    """Return the whole text of ``db/daq.template``."""
    macros = [
        f"# % macro, {name}, second part of the names, {default} by default\n"
        for name, default in MACROS.items()
    ]
    first = "# % macro, P, first part of all names, e.g. X02DA:\n"
    return HEAD + first + "".join(macros) + "".join(map(_record, PVS))


def reference() -> str:
    """Return the whole text of the page with all PVs."""
    return REFERENCE_HEAD + "".join(map(_line, PVS))


def _line(row: Row) -> str:
    states = " ".join(
        f"`{choice}:{severity}`" if severity else f"`{choice}`"
        for choice, severity in zip(row.choices, row.severities, strict=True)
    )
    value = states or row.egu
    if row.record == "waveform":
        value = f"text of {row.nelm} bytes" if row.ftvl == "CHAR" else f"up to {row.nelm} integers {row.egu}"
    access = "put" if row.put is not None else "read"
    return f"| `{row.pv('')}` | {row.record} | {value.strip()} | {access} | {row.description} |\n"


def _record(row: Row) -> str:
    kind = "bo" if row.record == "busy" else row.record
    name = f"$(P)$({row.macro}={MACROS[row.macro]}){row.name}"
    fields = "".join(f'    field({field}, "{_escaped(value)}")\n' for field, value in _fields(row))
    return f'\nrecord({kind}, "{name}") {{\n{fields}}}\n'


def _fields(row: Row) -> Iterator[tuple[str, object]]:
    """List a record's fields as a C IOC knows them; those that are as by default are left out."""
    yield "DESC", row.description
    if row.egu:
        yield "EGU", row.egu
    if row.record in ("ai", "ao"):
        yield "PREC", row.precision
    if row.record == "waveform":
        yield "FTVL", row.ftvl
        yield "NELM", row.nelm
    if row.display != (0, 0):
        yield from zip(("LOPR", "HOPR"), map(_number, row.display), strict=True)
    if row.control != (0, 0):
        yield from zip(("DRVL", "DRVH"), map(_number, row.control), strict=True)
    yield from _limits(row)
    yield from _states(row)


def _limits(row: Row) -> Iterator[tuple[str, object]]:
    limits = row.limits
    for field, limit, severity in (
        ("LOLO", limits.lolo, "MAJOR"),
        ("LOW", limits.low, "MINOR"),
        ("HIGH", limits.high, "MINOR"),
        ("HIHI", limits.hihi, "MAJOR"),
    ):
        if limit is not None:
            yield field, _number(limit)
            yield {"LOLO": "LLSV", "LOW": "LSV", "HIGH": "HSV", "HIHI": "HHSV"}[field], severity


def _states(row: Row) -> Iterator[tuple[str, object]]:
    names: tuple[str, ...]
    severities: tuple[str, ...]
    if row.record in ("bi", "bo", "busy"):
        names, severities = ("ZNAM", "ONAM"), ("ZSV", "OSV")
    else:
        names = tuple(f"{word}ST" for word in STATE_WORDS)
        severities = tuple(f"{word}SV" for word in STATE_WORDS)
        for n, word in enumerate(STATE_WORDS[: len(row.choices)]):
            yield f"{word}VL", n
    for name, choice in zip(names, row.choices, strict=False):
        yield name, choice
    for name, severity in zip(severities, row.severities, strict=False):
        if severity:
            yield name, severity


def _number(value: float) -> str:
    return f"{value:g}" if value != int(value) else str(int(value))


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    for path, text in ((TEMPLATE, template()), (REFERENCE, reference())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
