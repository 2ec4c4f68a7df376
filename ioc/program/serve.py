"""The command that runs the service: serve, its options and what is wrong with them.

They end up in a ``ServeOptions``; what is made of that is in ``ioc.service.serve``, which loads
every face and is imported last. The fork server is loading already then.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daq_core.linux.network import Network, is_loopback, parse_networks
from daq_core.state.receive_threads import ReceiveThreads, parse_cpus
from ioc.access import ipv4
from ioc.channel_access import environment
from ioc.service.log_output import LogLevel
from ioc.site.aliases import check_prefix, pv_names, read_aliases

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
    app.command(rich_help_panel="Service")(serve)


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
    ca_port: Annotated[
        int,
        typer.Option(
            envvar="STD_DAQ_CA_PORT",
            min=1,
            max=65535,
            default_factory=environment.ca_port,
            help="Port of Channel Access, TCP and UDP; default: EPICS_CA_SERVER_PORT or 5064.",
            show_default=False,
        ),
    ],
    bind: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_BIND",
            help="Address REST, Redis and Channel Access listen on.",
            callback=ipv4.listening,
        ),
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_TOKEN_FILE",
            help="File, mode 0600, with the secret that REST clients must send to change anything. "
            "A --bind beyond loopback needs this or --trusted-networks.",
            show_default=False,
        ),
    ] = None,
    trusted_networks: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_TRUSTED_NETWORKS",
            metavar="CIDR,...",
            help="Who may change things by REST without the secret, as std_daq_client must: 10.1.2.0/24",
            show_default=False,
        ),
    ] = "",
    allowed_hosts: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_ALLOWED_HOSTS",
            metavar="NAME,...",
            help="Names that REST is called by besides localhost and this machine's own: an alias, a proxy.",
            show_default=False,
        ),
    ] = "",
    rest_port: Annotated[
        int, typer.Option(envvar="STD_DAQ_REST_PORT", min=1, max=65535, help="TCP port of REST.")
    ] = 5000,
    redis_port: Annotated[
        int,
        typer.Option(envvar="STD_DAQ_REDIS_PORT", min=1, max=65535, help="Port of its own Redis server."),
    ] = 6379,
    redis_url: Annotated[
        str | None,
        typer.Option(envvar="STD_DAQ_REDIS_URL", help="Publish to this Redis instead: redis://host:port/db"),
    ] = None,
    no_redis: Annotated[
        bool, typer.Option("--no-redis", envvar="STD_DAQ_NO_REDIS", help="Publish nothing to Redis.")
    ] = False,
    udp_host: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_UDP_HOST",
            help="Address the detector's packets arrive at.",
            callback=ipv4.receiving,
        ),
    ] = "0.0.0.0",
    udp_sources: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_UDP_SOURCES",
            metavar="CIDR,...",
            help="Take packets of these senders only, others are counted as foreign; default: of all.",
            show_default=False,
        ),
    ] = "",
    receiver_threads: Annotated[
        int,
        typer.Option(
            envvar="STD_DAQ_RECEIVER_THREADS",
            min=0,
            max=64,
            help="Threads that share the UDP ports; 0: as many as --receiver-cpus names, "
            "or one for every four CPUs.",
        ),
    ] = 0,
    receiver_cpus: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_RECEIVER_CPUS",
            metavar="LIST",
            help="Keep receive threads on these CPUs, in turn: 2,3 or 4-7; default: on any.",
            show_default=False,
        ),
    ] = "",
    first_image_timeout_s: Annotated[
        float | None,
        typer.Option(
            envvar="STD_DAQ_FIRST_IMAGE_TIMEOUT_S",
            min=0.1,
            help="End a run as FAILED when no image comes within so many seconds; default: never.",
            show_default=False,
        ),
    ] = None,
    stall_timeout_s: Annotated[
        float | None,
        typer.Option(
            envvar="STD_DAQ_STALL_TIMEOUT_S",
            min=0.1,
            help="End a run as FAILED when its images stop for so many seconds; default: never.",
            show_default=False,
        ),
    ] = None,
    output_root: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="STD_DAQ_OUTPUT_ROOT",
            help="Folder that files may be written in; may be given several times (in the environment: a:b). "
            "Required with a --bind beyond loopback; default: /",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", envvar="STD_DAQ_OVERWRITE", help="Let a run replace an existing file."),
    ] = False,
    direct_io: Annotated[
        Literal["auto", "never"],
        typer.Option(
            envvar="STD_DAQ_DIRECT_IO",
            help="auto: uncompressed images go past the page cache (O_DIRECT) where the file system can. "
            "never: always through the cache, e.g. when others read them at once",
        ),
    ] = "auto",
    writer_group: Annotated[
        int | None,
        typer.Option(
            envvar="STD_DAQ_WRITER_GROUP",
            min=1,
            max=2**32 - 2,
            help="Group of the files of a writer_user_id without an account.",
        ),
    ] = None,
    min_user_id: Annotated[
        int | None,
        typer.Option(
            envvar="STD_DAQ_MIN_USER_ID",
            min=1,
            help="Least user id that may own files, that of the service itself included; default: any.",
            show_default=False,
        ),
    ] = None,
    id_source: Annotated[
        Literal["frame", "bunch", "bunch-int"],
        typer.Option(
            envvar="STD_DAQ_ID_SOURCE",
            help="What image ids are: the frame number, or a Jungfrau's bunch id (a double or an integer).",
        ),
    ] = "frame",
    sync_limit: Annotated[
        float,
        typer.Option(envvar="STD_DAQ_SYNC_LIMIT", min=0.1, help="Seconds that a REST write_sync may last."),
    ] = 60.0,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_STATE_DIR",
            help="Keeps the last config, setpoints and journal; default: DETECTOR.state beside the config.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            envvar="STD_DAQ_FRESH",
            help="Take --config and default setpoints, forget what was set since.",
        ),
    ] = False,
    alias_file: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_ALIAS_FILE",
            help="Second names of PVs, as CSV: alias, name.",
            show_default=False,
        ),
    ] = None,
    engineer: Annotated[
        str,
        typer.Option(
            envvar=["STD_DAQ_ENGINEER", "ENGINEER"],
            help="Who is responsible: shown by IOC:ENGINEER.",
            show_default=False,
        ),
    ] = "",
    location: Annotated[
        str,
        typer.Option(
            envvar=["STD_DAQ_LOCATION", "LOCATION"],
            help="Where the detector is: shown by IOC:LOCATION.",
            show_default=False,
        ),
    ] = "",
    acf: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_ACF",
            help="EPICS access security file: who may read and put what by Channel Access; "
            "default: all may read, clients on this machine may put.",
            show_default=False,
        ),
    ] = None,
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
    if redis_url is not None and no_redis:
        raise typer.BadParameter("--redis-url and --no-redis exclude each other.")
    if output_root is None and not is_loopback(bind):
        raise typer.BadParameter(f"--bind {bind} needs --output-root: name the folders to write in.")
    if not (token_file or trusted_networks or is_loopback(bind)):
        raise typer.BadParameter(
            f"--bind {bind} needs --token-file or --trusted-networks: say who may change things by REST."
        )
    trusted = _networks("--trusted-networks", trusted_networks)
    sources = _networks("--udp-sources", udp_sources)
    try:
        cpus = parse_cpus(receiver_cpus)
    except ValueError as error:
        raise typer.BadParameter(f"--receiver-cpus {receiver_cpus}: {error}.") from None
    for root in output_root or []:
        if not root.is_dir():
            raise typer.BadParameter(f"--output-root {root}: there is no such folder.")
    if list_pvs:
        aliases = _aliases(alias_file, prefix or "")
        print(*pv_names(prefix or ""), *aliases, sep="\n")
        return
    if config is None or prefix is None:
        option = "prefix" if config is not None else "config"
        raise typer.BadParameter(f"--{option} is missing; STD_DAQ_{option.upper()} does the same.")
    # Nothing here multiplies matrices, and numpy would start a thread for each core, which spins for a while.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    gc.disable()  # until READY, see ioc.service.serve
    from ioc.access.file import read_access_file
    from ioc.service.serve import ServeOptions, run

    aliases = _aliases(alias_file, prefix)
    if acf is not None:
        read_access_file(acf)  # a mistake in it is told at once; its hosts are looked up later
    options = ServeOptions(
        config=config,
        prefix=prefix,
        bind=bind,
        rest_port=rest_port,
        redis_port=None if no_redis else redis_port,
        redis_url=redis_url,
        ca_port=ca_port,
        token_file=token_file,
        trusted_networks=trusted,
        allowed_hosts=frozenset(name.strip() for name in allowed_hosts.split(",") if name.strip()),
        udp_host=udp_host,
        udp_sources=sources,
        receive_threads=ReceiveThreads(receiver_threads, cpus),
        first_image_timeout_s=first_image_timeout_s,
        stall_timeout_s=stall_timeout_s,
        output_roots=tuple(str(root) for root in output_root or [Path("/")]),
        overwrite=overwrite,
        direct_io=direct_io,
        writer_group=writer_group,
        min_user_id=min_user_id or 0,
        id_source=id_source,
        sync_limit_s=sync_limit,
        state_dir=state_dir or config.with_suffix(".state"),
        fresh=fresh,
        aliases=aliases,
        engineer=engineer,
        location=location,
        acf=acf,
    )
    raise typer.Exit(run(options, log_level, forks=context.obj))


def _aliases(file: Path | None, prefix: str) -> dict[str, str]:
    """Return the second names of PVs; a prefix that makes no good names is refused."""
    check_prefix(prefix)
    return read_aliases(file, prefix) if file is not None else {}


def _networks(option: str, text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}.") from None
