"""The command that writes what other services load: db."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daq_core.errors import Unavailable

NO_PREFIX = "$(P)"
"""Stands for the prefix in what is committed."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(rich_help_panel="Service")(db)


def db(
    output: Annotated[Path, typer.Option(help="Folder to write in; it is made.")] = Path("db"),
    prefix: Annotated[
        str, typer.Option(help="Start of the PVs' names, for example X02DA:; without it the macro stays.")
    ] = NO_PREFIX,
    reference: Annotated[
        Path | None, typer.Option(help="Write the page with all PVs, too.", show_default=False)
    ] = None,
) -> None:
    """Write the database, an access file, screens, and lists for archiver, alarms, autosave and gateway.

    All are made from the PVs that `serve` has. Archiver, alarm server and gateway know no macros:
    give the prefix for them.
    """
    from ioc.site.database import FILES  # loads the PVs
    from ioc.site.reference import reference as page

    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, make in FILES.items():
            _write(output / name, make(prefix))
        if reference is not None:
            _write(reference, page(prefix))
    except OSError as error:
        raise Unavailable(f"{error.filename} cannot be written: {error.strerror}.") from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(path)
