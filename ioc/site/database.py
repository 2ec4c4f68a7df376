"""The files that are made from the PV table, by name, and the command that writes them.

``std-daq-ioc db`` writes them all; a test compares what is committed with what the
table gives. A file more is a function of the prefix, and one more line of ``FILES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from daq_core.errors import Unavailable

NO_PREFIX = "$(P)"
"""Stands for the prefix in what is committed."""

REFERENCE = Path("docs/reference/pvs.md")


def files() -> Mapping[str, Callable[[str], str]]:
    """Return what makes each file of ``db/``: a function of the prefix."""
    from ioc.site import access_file as db_access
    from ioc.site import operations as db_operations
    from ioc.site import phoebus as screen_phoebus
    from ioc.site import pydm as screen_pydm
    from ioc.site import template as db_template

    return {
        "daq.template": db_template.template,
        "daq.substitutions": db_template.substitutions,
        "daq.acf": db_access.access_file,
        "daq_settings.req": db_operations.settings,
        "archive.txt": db_operations.archive,
        "alarm.xml": db_operations.alarms,
        "pvlist": db_operations.pvlist,
        "daq.bob": screen_phoebus.screen,
        "daq.ui": screen_pydm.screen,
    }


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
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, make in files().items():
            _write(output / name, make(prefix))
        if reference is not None:
            from ioc.site.reference import reference as page

            _write(reference, page(prefix))
    except OSError as error:
        raise Unavailable(f"{error.filename} cannot be written: {error.strerror}.") from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(path)


if __name__ == "__main__":
    db(reference=REFERENCE)
