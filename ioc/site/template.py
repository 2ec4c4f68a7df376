"""The PVs as records of a C IOC: ``daq.template``, and ``daq.substitutions`` that expands it."""

from __future__ import annotations

from collections.abc import Iterator

from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS, Row
from ioc.records.fields import STATE_WORDS

HEAD = """\
# Made from ioc/pvs/ by `std-daq-ioc db`: change the table, not this file.
#
# The PVs that std-daq-ioc serves itself, as records of EPICS Base alone (`bo` where
# it serves a `busy`), e.g. for `softIoc -m P=X02DA: -d daq.template`.
#
"""

SUBSTITUTIONS_HEAD = """\
# Made from ioc/pvs/ by `std-daq-ioc db`: change the table, not this file.
#
# One line a detector. P is what `std-daq-ioc serve --prefix` was given; the other
# parts of the names are fixed in std-daq-ioc, and only a C IOC could change them.
"""


def substitutions(prefix: str) -> str:
    """Return ``daq.substitutions``; without a prefix P stays a macro, to be given to msi or the IOC."""
    names = ", ".join(MACROS)
    parts = ", ".join(f'"{part}"' for part in MACROS.values())
    return (
        f'{SUBSTITUTIONS_HEAD}file "daq.template" {{\n    pattern {{ P, {names} }}\n'
        f'    {{ "{prefix}", {parts} }}\n}}\n'
    )


def template(prefix: str) -> str:
    """Return ``daq.template``, the same for every prefix: P is a macro of it."""
    macros = [
        f"# % macro, {name}, second part of the names, {default} by default\n"
        for name, default in MACROS.items()
    ]
    first = "# % macro, P, first part of all names, e.g. X02DA:\n"
    return HEAD + first + "".join(macros) + "".join(map(_record, PVS))


def _record(row: Row) -> str:
    kind = "bo" if row.record == "busy" else row.record
    name = f"$(P)$({row.macro}={MACROS[row.macro]}){row.name}"
    fields = "".join(f'    field({field}, "{_escaped(value)}")\n' for field, value in _fields(row))
    return f'\nrecord({kind}, "{name}") {{\n{fields}}}\n'


def _fields(row: Row) -> Iterator[tuple[str, object]]:
    """List a record's fields as a C IOC knows them; those that are as by default are left out."""
    yield "DESC", row.description
    yield "ASG", row.access
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
