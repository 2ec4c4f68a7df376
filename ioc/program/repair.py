"""The command that makes the file of a killed writer readable again: repair."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

WITHIN_S = 300.0
"""HDF5 may hang on a damaged file; an image more is half a microsecond's work."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(rich_help_panel="Detector packets")(repair)


def repair(
    files: Annotated[list[Path], typer.Argument(help="HDF5 files of this DAQ.", show_default=False)],
) -> None:
    """Make files that their writer could not close readable again, with the images counted so far.

    The name of a run of several writers stands for all their files, and for the one over them.

    The service does it by itself; this is for a file it could not reach. A file that is well is not touched.
    Neither is one that is still being written, cut off, or of another program.

    Exit codes: 0 all of them are readable, 1 one is not, and the line says why.
    """
    from daq_core.files.guarded import NotDone, guarded
    from daq_core.files.parts import repair_run

    done = True
    for path in files:
        try:
            report = guarded(partial(repair_run, str(path)), WITHIN_S)
        except (OSError, NotDone) as error:
            done = False
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            print(f"{path} was not repaired: {' '.join(reason.split())}.")
        else:
            done = done and report.is_readable
            print(report.message)
    if not done:
        raise typer.Exit(1)
