"""Options of a command in groups: a dataclass declares them, each field is one.

``rest_port: Annotated[int, typer.Option(help="…")] = 5000`` becomes ``--rest-port``, which can be
given as STD_DAQ_REST_PORT, too. So an option is declared in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_type_hints

ENVIRONMENT = "STD_DAQ_"


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer: it has an option for each field of the dataclasses that `command` takes.

    Parameters of `command` that are no dataclass stay as they are.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    options: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            options += _options(groups[name])
        else:
            kept = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
            options.append(kept)

    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    spread_out.__name__, spread_out.__doc__ = command.__name__, command.__doc__
    spread_out.__annotations__ = {option.name: option.annotation for option in options}
    spread_out.__signature__ = Signature(options)  # type: ignore[attr-defined]  # what typer reads
    return spread_out


def _options(group: type) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=_in_environment(field.name, hints[field.name]),
        )
        for field in fields(group)
    ]


def _in_environment(name: str, hint: Any) -> Any:
    """Give an option its name in the environment, but where it has one."""
    kind, option = get_args(hint)
    option = copy(option)
    option.envvar = option.envvar or ENVIRONMENT + name.upper()
    return Annotated[kind, option]
