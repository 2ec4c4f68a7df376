"""The names that clients may ask for: PVs, their second names, and the fields of both."""

from __future__ import annotations

from collections.abc import Mapping

from ioc.records.fields import field_of
from ioc.records.record import Record


class Names:
    """Records by name; a field is made when somebody asks for it first."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        self._fields: dict[str, Record] = {}

    def find(self, name: str) -> Record | None:
        """Return the record or field of a name: ``X``, ``X.VAL``, ``X.EGU``, ``X.VAL$``; None for others."""
        if name in self._records:
            return self._records[name]
        base, _, field = name.removesuffix("$").partition(".")
        record = self._records.get(base)
        if record is None or len(field) > 4:
            return None
        key = f"{record.name}.{field}"  # an alias has the fields of its record
        if key not in self._fields:
            found = field_of(record, field)
            if found is None:
                return None
            self._fields[key] = found
        return self._fields[key]
