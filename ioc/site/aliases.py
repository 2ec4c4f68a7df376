"""A site's own names for PVs: a file of aliases, read and checked before anything starts.

An alias is a second name of the same record: found, read, put and monitored like
the first, with the same fields and access rules.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from daq_core.errors import InvalidConfig
from ioc.pvs.daq import PVS

MAX_NAME_BYTES = 60
"""Length of a record's name in EPICS Base."""

NAME = re.compile(r"[A-Za-z0-9_\-+:\[\]<>;{}]+")  # some facilities write XF:31IDA-OP{Tbl-Ax:X1}Mtr
MARKS = "_-+:[]<>;{}"


def pv_names(prefix: str) -> list[str]:
    """Return the names of all PVs, in the order of the table."""
    return [row.pv(prefix) for row in PVS]


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that makes names no C client or record could have; InvalidConfig says why."""
    longest = max(map(len, pv_names("")))
    if prefix and not NAME.fullmatch(prefix):
        raise InvalidConfig(f"--prefix {prefix!r}: a PV's name has letters, digits and {MARKS} alone.")
    if len(prefix) + longest > MAX_NAME_BYTES:
        raise InvalidConfig(
            f"--prefix {prefix}: a PV's name has {MAX_NAME_BYTES} characters at most, which leaves "
            f"{MAX_NAME_BYTES - longest} for the prefix."
        )


def read_aliases(file: Path, prefix: str) -> dict[str, str]:
    """Read lines of ``alias, name`` into {alias: name of the PV}.

    The name may be whole (``X02DA:DAQ:Stop``) or without the prefix (``DAQ:Stop``).
    Empty lines and lines that begin with # are skipped.

    Raises
    ------
    InvalidConfig
        The file cannot be read, or a line of it is not right; the text names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets mark UTF-8 at the beginning
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidConfig(f"The alias file {file} cannot be read: {reason}.") from None
    known = set(pv_names(prefix))
    aliases: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            alias, name = _alias(line, prefix, known)
            if alias in aliases:
                raise ValueError(f"{alias} is an alias of {aliases[alias]} already")
        except ValueError as fault:
            raise InvalidConfig(f"{file}, line {number}: {fault}.") from None
        aliases[alias] = name
    return aliases


def _alias(line: str, prefix: str, known: set[str]) -> tuple[str, str]:
    try:
        fields = [field.strip() for field in next(csv.reader([line]), [])]
    except csv.Error as error:  # which is no ValueError
        raise ValueError(f"expected 'alias, name': {error}") from None
    if len(fields) != 2:
        raise ValueError(f"expected 'alias, name', got {line.strip()[:100]!r}")
    alias, name = fields
    if not NAME.fullmatch(alias) or len(alias) > MAX_NAME_BYTES:
        raise ValueError(
            f"{alias!r} cannot be a PV's name: 1 to {MAX_NAME_BYTES} letters, digits and {MARKS}"
        )
    if alias in known:
        raise ValueError(f"{alias} is the name of a PV itself")
    for whole in (name, prefix + name):
        if whole in known:
            return alias, whole
    raise ValueError(f"there is no PV {name}; see `std-daq-ioc serve --list-pvs`")
