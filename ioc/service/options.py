"""The options of ``std-daq-ioc serve``, each declared once: its name, type, default, bounds and help.

The command line, the names in the environment and ``--help`` are made of these fields, by
``ioc.program.option_groups``: the field ``rest_port`` is ``--rest-port`` and STD_DAQ_REST_PORT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from daq_core.linux.network import Network, parse_networks
from daq_core.state.options import DaqOptions
from daq_core.state.receive_threads import ReceiveThreads, parse_cpus
from ioc.access import ipv4
from ioc.channel_access import environment


@dataclass(frozen=True, kw_only=True)
class FaceOptions:
    """How clients reach the service, and who may change things by REST."""

    ca_port: Annotated[
        int,
        Option(
            min=1,
            max=65535,
            default_factory=environment.ca_port,
            help="Port of Channel Access, TCP and UDP; default: EPICS_CA_SERVER_PORT or 5064.",
            show_default=False,
        ),
    ]
    bind: Annotated[
        str,
        Option(
            help="Address REST, Redis and Channel Access listen on.",
            callback=ipv4.listening,
        ),
    ] = "127.0.0.1"
    token_file: Annotated[
        Path | None,
        Option(
            help="File, mode 0600, with the secret that REST clients must send to change anything. "
            "A --bind beyond loopback needs this or --trusted-networks.",
            show_default=False,
        ),
    ] = None
    trusted_networks: Annotated[
        str,
        Option(
            metavar="CIDR,...",
            help="Who may change things by REST without the secret, as std_daq_client must: 10.1.2.0/24",
            show_default=False,
        ),
    ] = ""
    allowed_hosts: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="Names that REST is called by besides localhost and this machine's own: an alias, a proxy.",
            show_default=False,
        ),
    ] = ""
    rest_port: Annotated[int, Option(min=1, max=65535, help="TCP port of REST.")] = 5000
    redis_port: Annotated[
        int,
        Option(min=1, max=65535, help="Port of its own Redis server."),
    ] = 6379
    redis_url: Annotated[
        str | None,
        Option(help="Publish to this Redis instead: redis://host:port/db"),
    ] = None
    no_redis: Annotated[bool, Option("--no-redis", help="Publish nothing to Redis.")] = False

    @property
    def trusted(self) -> tuple[Network, ...]:
        """Who may change things by REST without the secret; ValueError: it is not readable."""
        return parse_networks(self.trusted_networks)

    @property
    def host_names(self) -> frozenset[str]:
        """Names that REST is called by, beside its own."""
        return frozenset(name.strip() for name in self.allowed_hosts.split(",") if name.strip())

    @property
    def own_redis_port(self) -> int | None:
        """Port of the Redis server that the service starts; None: it starts none."""
        return None if self.no_redis or self.redis_url is not None else self.redis_port


@dataclass(frozen=True, kw_only=True)
class ReceiveOptions:
    """Where images come in, whose, and how long a run waits for them."""

    udp_host: Annotated[
        str,
        Option(
            help="Address the detector's packets arrive at.",
            callback=ipv4.receiving,
        ),
    ] = "0.0.0.0"
    udp_sources: Annotated[
        str,
        Option(
            metavar="CIDR,...",
            help="Take packets of these senders only, others are counted as foreign; default: of all.",
            show_default=False,
        ),
    ] = ""
    receiver_threads: Annotated[
        int,
        Option(
            min=0,
            max=64,
            help="Threads that share the UDP ports; 0: as many as --receiver-cpus names, "
            "or one for every four CPUs.",
        ),
    ] = 0
    receiver_cpus: Annotated[
        str,
        Option(
            metavar="LIST",
            help="Keep receive threads on these CPUs, in turn: 2,3 or 4-7; default: on any.",
            show_default=False,
        ),
    ] = ""
    first_image_timeout_s: Annotated[
        float | None,
        Option(
            min=0.1,
            help="End a run as FAILED when no image comes within so many seconds; default: never.",
            show_default=False,
        ),
    ] = None
    stall_timeout_s: Annotated[
        float | None,
        Option(
            min=0.1,
            help="End a run as FAILED when its images stop for so many seconds; default: never.",
            show_default=False,
        ),
    ] = None

    @property
    def sources(self) -> tuple[Network, ...]:
        """Whose packets are taken, none for everybody's; ValueError: it is not readable."""
        return parse_networks(self.udp_sources)

    @property
    def threads(self) -> ReceiveThreads:
        """How the UDP ports are shared; ValueError: the CPUs are not readable."""
        return ReceiveThreads(self.receiver_threads, parse_cpus(self.receiver_cpus))


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Where files are written, how, and who owns them; which ids images have there."""

    output_root: Annotated[
        list[Path] | None,
        Option(
            help="Folder that files may be written in; may be given several times (in the environment: a:b). "
            "Required with a --bind beyond loopback; default: /",
            show_default=False,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Let a run replace an existing file."),
    ] = False
    direct_io: Annotated[
        Literal["auto", "never"],
        Option(
            help="auto: uncompressed images go past the page cache (O_DIRECT) where the file system can. "
            "never: always through the cache, e.g. when others read them at once",
        ),
    ] = "auto"
    writer_group: Annotated[
        int | None,
        Option(
            min=1,
            max=2**32 - 2,
            help="Group of the files of a writer_user_id without an account.",
        ),
    ] = None
    min_user_id: Annotated[
        int | None,
        Option(
            min=1,
            help="Least user id that may own files, that of the service itself included; default: any.",
            show_default=False,
        ),
    ] = None
    id_source: Annotated[
        Literal["frame", "bunch", "bunch-int"],
        Option(
            help="What image ids are: the frame number, or a Jungfrau's bunch id (a double or an integer).",
        ),
    ] = "frame"

    @property
    def roots(self) -> tuple[str, ...]:
        """Folders that files may be written in."""
        return tuple(str(root) for root in self.output_root or [Path("/")])


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What the service keeps, what its PVs are called, and who may put them."""

    sync_limit: Annotated[
        float,
        Option(min=0.1, help="Seconds that a REST write_sync may last."),
    ] = 60.0
    state_dir: Annotated[
        Path | None,
        Option(
            help="Keeps the last config, setpoints and journal; default: DETECTOR.state beside the config.",
            show_default=False,
        ),
    ] = None
    fresh: Annotated[
        bool,
        Option(
            "--fresh",
            help="Take --config and default setpoints, forget what was set since.",
        ),
    ] = False
    alias_file: Annotated[
        Path | None,
        Option(
            help="Second names of PVs, as CSV: alias, name.",
            show_default=False,
        ),
    ] = None
    engineer: Annotated[
        str,
        Option(
            envvar=["STD_DAQ_ENGINEER", "ENGINEER"],
            help="Who is responsible: shown by IOC:ENGINEER.",
            show_default=False,
        ),
    ] = ""
    location: Annotated[
        str,
        Option(
            envvar=["STD_DAQ_LOCATION", "LOCATION"],
            help="Where the detector is: shown by IOC:LOCATION.",
            show_default=False,
        ),
    ] = ""
    acf: Annotated[
        Path | None,
        Option(
            help="EPICS access security file: who may read and put what by Channel Access; "
            "default: all may read, clients on this machine may put.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class ServeOptions:
    """All that the service is started with, checked."""

    config: Path
    prefix: str
    faces: FaceOptions
    receive: ReceiveOptions
    write: WriteOptions
    service: ServiceOptions
    aliases: Mapping[str, str]  # second names of PVs

    @property
    def state_dir(self) -> Path:
        return self.service.state_dir or self.config.with_suffix(".state")

    def daq_options(self) -> DaqOptions:
        receive, write = self.receive, self.write
        return DaqOptions(
            udp_host=receive.udp_host,
            udp_sources=receive.sources,
            receive_threads=receive.threads,
            first_image_timeout_s=receive.first_image_timeout_s,
            stall_timeout_s=receive.stall_timeout_s,
            id_source=write.id_source,
            output_roots=write.roots,
            state_dir=self.state_dir,
            overwrite=write.overwrite,
            direct_io=write.direct_io,
            writer_group=write.writer_group,
            min_user_id=write.min_user_id or 0,
        )
