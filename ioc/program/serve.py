"""The command that runs the service: serve, its options and what is wrong with them.

The options are declared in ``ioc.service.options``; what is made of them is in
``ioc.serve``, which loads every face and is imported last. The fork server is loading already then.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daq_core.linux.network import is_loopback, parse_networks
from daq_core.state.receive_threads import parse_cpus
from ioc.program.option_groups import spread
from ioc.service.log_output import LogLevel
from ioc.service.options import FaceOptions, ReceiveOptions, ServeOptions, ServiceOptions, WriteOptions

if TYPE_CHECKING:
    from daq_core.processes.forks import ForkServer


@contextmanager
def launched_forks(arguments: Sequence[str]) -> Iterator[ForkServer | None]:
    """Give a fork server that loads while the command line is parsed, when that says to serve; else None.

    What it loads, numba and the kernels, takes longer than all else in a start. It is killed at the end.
    """
    if arguments[:1] != ["serve"] or not {"-h", "--help", "--list-pvs"}.isdisjoint(arguments):
        yield None
        return
    from daq_core.processes.forks import ForkServer

    forks = ForkServer()
    forks.launch()
    try:
        yield forks
    finally:
        forks.kill()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(rich_help_panel="Service")(spread(serve))


def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_CONFIG",
            default_factory=lambda: None,
            help="Detector config, as std_daq's JSON; required, but for --list-pvs.",
            show_default=False,
        ),
    ],
    prefix: Annotated[
        str | None,
        typer.Option(
            envvar="STD_DAQ_PREFIX",
            default_factory=lambda: None,
            help="Start of every PV's name, for example X02DA:; required, but for --list-pvs.",
            show_default=False,
        ),
    ],
    faces: FaceOptions,
    receive: ReceiveOptions,
    write: WriteOptions,
    service: ServiceOptions,
    list_pvs: Annotated[
        bool, typer.Option("--list-pvs", help="Print the names of all PVs, aliases too, and end.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="STD_DAQ_LOG_LEVEL", help="Least severity of log lines (on stderr).")
    ] = "info",
) -> None:
    """Run the DAQ with its faces: Channel Access, REST and Redis.

    Prints one line that starts with READY when every face answers. SIGTERM, Ctrl-C, SIGHUP and SIGQUIT
    close a running file and end it with exit code 0. SIGTERM or Ctrl-C again, a second later or more, do not
    wait. A put to IOC:SYSRESET ends it with exit code 75: whoever watches over it should start it again.

    Every option can be given in the environment: STD_DAQ_REST_PORT=5001 is --rest-port 5001.
    """
    if faces.redis_url is not None and faces.no_redis:
        raise typer.BadParameter("--redis-url and --no-redis exclude each other.")
    if write.output_root is None and not is_loopback(faces.bind):
        raise typer.BadParameter(f"--bind {faces.bind} needs --output-root: name the folders to write in.")
    if not (faces.token_file or faces.trusted_networks or is_loopback(faces.bind)):
        raise typer.BadParameter(
            f"--bind {faces.bind} needs --token-file or --trusted-networks: "
            "say who may change things by REST."
        )
    _check("--trusted-networks", faces.trusted_networks, parse_networks)
    _check("--udp-sources", receive.udp_sources, parse_networks)
    _check("--receiver-cpus", receive.receiver_cpus, parse_cpus)
    for root in write.output_root or []:
        if not root.is_dir():
            raise typer.BadParameter(f"--output-root {root}: there is no such folder.")
    if list_pvs:
        from ioc.site.aliases import pv_names  # loads the PVs and with them the detectors

        aliases = _aliases(service.alias_file, prefix or "")
        print(*pv_names(prefix or ""), *aliases, sep="\n")
        return
    if config is None or prefix is None:
        option = "prefix" if config is not None else "config"
        raise typer.BadParameter(f"--{option} is missing; STD_DAQ_{option.upper()} does the same.")
    # Nothing here multiplies matrices, and numpy would start a thread for each core, which spins for a while.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    gc.disable()  # until READY, see ioc.serve
    from ioc.access.file import read_access_file
    from ioc.serve import run

    aliases = _aliases(service.alias_file, prefix)
    if service.acf is not None:
        read_access_file(service.acf)  # a mistake in it is told at once; its hosts are looked up later
    options = ServeOptions(config, prefix, faces, receive, write, service, aliases)
    raise typer.Exit(run(options, log_level, forks=context.obj))


def _aliases(file: Path | None, prefix: str) -> dict[str, str]:
    """Return the second names of PVs; a prefix that makes no good names is refused."""
    from ioc.site.aliases import check_prefix, read_aliases

    check_prefix(prefix)
    return read_aliases(file, prefix) if file is not None else {}


def _check(option: str, text: str, parse: Callable[[str], object]) -> None:
    try:
        parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}.") from None
