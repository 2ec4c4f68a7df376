"""The program ``std-daq-ioc``: which commands it has, and how errors end it.

Nothing heavy is imported before a command needs it: ``--help`` and the client
commands answer at once.

Exit codes: 0 done; 1 the service, the machine or a check said no; 2 wrong
usage, or a config file that cannot be; 3 a client command found no service; 4 a run
lost something (start --strict); 75 serve wants to be started again (IOC:SYSRESET);
130 interrupted. Errors are one line on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from daq_core.errors import DaqError, InvalidConfig
from daq_core.linux.surroundings import disregard_hdf5_settings, let_no_others_write, speak_utf8
from ioc.program import compiling, database, packets
from ioc.program import inspect as inspection
from ioc.program import repair as repairing
from ioc.program import serve as serve_command
from ioc.program.client import commands as control
from ioc.program.client.service_client import Unreachable
from ioc.program.doctor import command as doctor

app = typer.Typer(
    name="std-daq-ioc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=(
        "Data acquisition for X-ray area detectors: UDP packets become checked HDF5 files, "
        "driven by EPICS Channel Access, by std_daq_client (REST), and seen in Redis streams.\n\n"
        "First steps: `std-daq-ioc demo` shows it all on a simulated detector; "
        "`std-daq-ioc serve --config DETECTOR.json --prefix X02DA:` is the service; "
        "`std-daq-ioc start /data/run1.h5 100` takes a run."
    ),
)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show_version:
        from importlib.metadata import version

        print(version("std-daq-ioc"))
        raise typer.Exit


serve_command.register(app)


@app.command(rich_help_panel="Service")
def demo(
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: a new one.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option(help="Keep the files at the end.")] = True,
    images: Annotated[int, typer.Option(min=1, max=10_000, help="Images of each run.")] = 50,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Images a second.")] = 20.0,
) -> None:
    """Take three runs of a simulated Jungfrau, by REST, Channel Access and CLI, and check every pixel."""
    from ioc.program.demo import run_demo

    run_demo(output, keep=keep, n_images=images, rate_hz=rate)


compiling.register(app)
doctor.register(app)
packets.register(app)
inspection.register(app)
repairing.register(app)
control.register(app)
database.register(app)


def main() -> None:
    """Run the program; every error a user can make or meet is one line."""
    speak_utf8()
    disregard_hdf5_settings()
    let_no_others_write()
    try:
        with serve_command.launched_forks(sys.argv[1:]) as forks:
            status = app(prog_name="std-daq-ioc", standalone_mode=False, obj=forks)
        sys.exit(status)
    except typer.Abort:
        sys.exit(130)
    except typer.TyperException as error:
        _complain(error.format_message() or "a command is missing; see --help")
        sys.exit(2)
    except Unreachable as error:
        _complain(str(error))
        sys.exit(3)
    except InvalidConfig as error:
        _complain(str(error))
        sys.exit(2)
    except DaqError as error:
        _complain(str(error))
        sys.exit(1)


def _complain(message: str) -> None:
    print("std-daq-ioc: " + " ".join(message.split()), file=sys.stderr)
