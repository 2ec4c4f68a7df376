"""Config changes that wait for ConfigApply: partial, immutable, checked as far as one value can be.

A single setpoint may be inconsistent with the rest of the config for a while
(a new image size before the new module positions), so only ConfigApply judges
the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from daq_core.config import DaqConfig, named, read_json, unknown_keys
from daq_core.detectors import FORMATS
from daq_core.errors import InvalidConfig

MAX_MODULES = 256


@dataclass(frozen=True)
class Staging:
    """What ConfigApply would change. ``module_ids`` and ``corners`` come as two arrays."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    module_ids: tuple[int, ...] | None = None
    corners: tuple[int, ...] | None = None  # start_x, start_y, end_x, end_y of each module

    def put(self, key: str, value: object) -> Staging:
        """Stage one key."""
        return replace(self, changes={**self.changes, key: value})

    def put_bit_depth(self, value: int) -> Staging:
        depths = sorted({depth for form in FORMATS.values() for depth in form.bit_depths})
        if value not in depths:
            raise InvalidConfig(
                f"bit_depth {value} is not supported; known are {', '.join(map(str, depths))}."
            )
        return self.put("bit_depth", value)

    def put_json(self, text: str, current: DaqConfig) -> Staging:
        """Stage the keys of a JSON object; refused when the whole would not be legal."""
        try:
            values = read_json(text)
        except InvalidConfig as error:
            raise InvalidConfig(f"CfgJson: {error}") from None
        if not isinstance(values, dict):
            raise InvalidConfig("CfgJson: the config must be a JSON object.")
        if unknown := unknown_keys(values):
            raise InvalidConfig(f"CfgJson: no config has {named(unknown)}.")
        arrays = {} if "module_positions" in values else self._arrays(current)
        merged = {**self.changes, **arrays, **values}
        current.merge(merged)
        return Staging(merged)

    def request(self, current: DaqConfig) -> dict[str, Any]:
        """Return the partial config to apply; InvalidConfig where the two arrays do not match."""
        return {**self.changes, **self._arrays(current)}

    def shown(self, current: DaqConfig) -> dict[str, Any]:
        """Return the whole config as it would be, as far as it can be told."""
        return current.as_dict() | dict(self.changes)

    def ids_shown(self, current: DaqConfig) -> tuple[int, ...]:
        return self.module_ids if self.module_ids is not None else _ids(self._positions(current))

    def corners_shown(self, current: DaqConfig) -> tuple[int, ...]:
        return self.corners if self.corners is not None else _corners(self._positions(current))

    def pending(self, current: DaqConfig) -> bool:
        """Tell whether ConfigApply would change anything."""
        now = current.as_dict()
        positions = now["module_positions"]
        return (
            any(now.get(key) != value for key, value in self.changes.items())
            or self.ids_shown(current) != _ids(positions)
            or self.corners_shown(current) != _corners(positions)
        )

    def _positions(self, current: DaqConfig) -> Mapping[Any, Any]:
        positions: Mapping[Any, Any] = self.shown(current)["module_positions"]
        return positions

    def _arrays(self, current: DaqConfig) -> dict[str, Any]:
        if self.module_ids is None and self.corners is None:
            return {}
        ids, corners = self.ids_shown(current), self.corners_shown(current)
        if len(corners) != 4 * len(ids):
            raise InvalidConfig(
                f"CfgModulePositions has {len(corners)} numbers for the {len(ids)} modules of CfgModuleIds: "
                "four are needed for each."
            )
        if len(set(ids)) != len(ids):
            raise InvalidConfig("CfgModuleIds names a module twice.")
        each = (list(corners[i : i + 4]) for i in range(0, len(corners), 4))
        return {"module_positions": dict(zip(map(str, ids), each, strict=True))}


def _ids(positions: Mapping[Any, Any]) -> tuple[int, ...]:
    return tuple(int(module) for module in positions)


def _corners(positions: Mapping[Any, Any]) -> tuple[int, ...]:
    return tuple(int(corner) for corners in positions.values() for corner in corners)
