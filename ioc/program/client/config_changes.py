"""What ``std-daq-ioc config`` is to change: a JSON file, KEY=VALUE pairs, or both, the pairs over the file.

A mistyped key is refused here, where a person is told at once. REST ignores and names it,
for std_daq's own clients send keys that only std_daq knows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from daq_core.errors import InvalidConfig


def read_changes(arguments: list[str]) -> dict[str, Any]:
    """Make config changes of a JSON file's name and KEY=VALUE pairs (a VALUE is JSON, else text).

    Raises
    ------
    typer.BadParameter
        A file cannot be read or is no config; an argument is neither; a key is given twice, or no config
        has it. A file may have std_daq's own keys: there it is wrong only where it resembles one of ours.
    """
    changes: dict[str, Any] = {}
    pairs = arguments
    if arguments and ("=" not in arguments[0] or _is_file(arguments[0])):
        changes, pairs = _read_file(arguments[0]), arguments[1:]
        _refuse_mistyped(changes, arguments[0])
    given = _read_pairs(pairs)
    _refuse_unknown(given)
    return changes | given


def _read_file(name: str) -> dict[str, Any]:
    from daq_core.config import read_json

    try:
        values = read_json(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}.") from None
    except InvalidConfig as error:
        raise typer.BadParameter(f"{name}: {error}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{name}: not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise typer.BadParameter(f"{name}: a config is a JSON object.")
    return values


def _read_pairs(arguments: list[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{argument}: must be KEY=VALUE; a JSON file comes first.")
        if key in changes:
            raise typer.BadParameter(f"{key} is given twice: with which value?")
        try:
            changes[key] = json.loads(text)
        except (ValueError, RecursionError):
            changes[key] = text
    return changes


def _refuse_mistyped(values: dict[str, Any], name: str) -> None:
    from daq_core.config import named, nearest_key, unknown_keys

    if mistyped := [key for key in unknown_keys(values) if nearest_key(key)]:
        raise typer.BadParameter(f"{name}: no config has {named(mistyped)}.")


def _refuse_unknown(values: dict[str, Any]) -> None:
    from daq_core.config import named, unknown_keys

    if unknown := unknown_keys(values):
        raise typer.BadParameter(f"no config has {named(unknown)}.")


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
