"""The command doctor: its options, its report, its exit code."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daq_core.amounts import in_gb
from ioc.access import ipv4
from ioc.channel_access import environment
from ioc.program.progress import shown_progress

if TYPE_CHECKING:
    from daq_core.config import DaqConfig
    from ioc.program.doctor.finding import Finding, Findings
    from ioc.program.doctor.self_test import Reached, SelfTest

WIDTH = 17
PORT = {"min": 1, "max": 65535}
EXAMPLE = {
    "detector_name": "example",
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "n_modules": 1,
    "image_pixel_height": 512,
    "image_pixel_width": 1024,
    "start_udp_port": 30100,
    "writer_user_id": 0,
    "module_positions": {"0": [0, 0, 1023, 511]},
}
"""What the machine is looked at for, and measured with, when no config is given."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(rich_help_panel="Service")(doctor)


def doctor(
    ca_port: Annotated[
        int,
        typer.Option(
            envvar="STD_DAQ_CA_PORT",
            help="As serve's.",
            default_factory=environment.ca_port,
            show_default=False,
            **PORT,
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="STD_DAQ_CONFIG",
            help="Detector config, as std_daq's JSON; default: one Jungfrau module.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder that the files will be written in; some are, for a while.")
    ] = Path("."),
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Send simulated images through the real DAQ, and tell which rate arrives whole."
        ),
    ] = False,
    seconds: Annotated[float, typer.Option(min=3, max=100, help="How long --measure takes, about.")] = 90.0,
    udp_host: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_UDP_HOST", help="As serve's: where packets arrive.", callback=ipv4.receiving
        ),
    ] = "0.0.0.0",
    bind: Annotated[
        str,
        typer.Option(
            envvar="STD_DAQ_BIND",
            help="As serve's: where REST, Redis and CA listen.",
            callback=ipv4.listening,
        ),
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(envvar="STD_DAQ_TOKEN_FILE", help="As serve's.", show_default=False)
    ] = None,
    rest_port: Annotated[int, typer.Option(envvar="STD_DAQ_REST_PORT", help="As serve's.", **PORT)] = 5000,
    redis_port: Annotated[int, typer.Option(envvar="STD_DAQ_REDIS_PORT", help="As serve's.", **PORT)] = 6379,
    no_redis: Annotated[
        bool, typer.Option("--no-redis", envvar="STD_DAQ_NO_REDIS", help="As serve's.")
    ] = False,
    receiver_threads: Annotated[
        int, typer.Option(envvar="STD_DAQ_RECEIVER_THREADS", min=0, max=64, help="As serve's, for --measure.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
) -> None:
    """Look at this machine as the DAQ will meet it: what limits it, what will not work, and what cures each.

    Run it as the user, with the rights and the options of the service, on an idle machine, and while
    the service does not run: a port that the service has is a port in use. It changes nothing.

    Exit codes: 0 it will work, 1 something will not, 2 wrong usage or a config that cannot be.
    """
    from daq_core.config import DaqConfig

    detector = DaqConfig.load(config) if config is not None else DaqConfig.parse(EXAMPLE)
    faces = (bind, rest_port, None if no_redis else redis_port, ca_port)
    findings = []
    for finding in _looks(detector, output, udp_host, faces, token_file):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    verdicts = Counter(finding.verdict for finding in findings)
    if not as_json:
        print(f"\n{verdicts['problem']} problems, {verdicts['limits']} limits, {verdicts['good']} good")
    measured = _measure(detector, output, seconds, receiver_threads) if measure else None
    if as_json:
        report = {
            "findings": [asdict(f) for f in findings],
            "measured": asdict(measured) if measured else None,
        }
        print(json.dumps(report, indent=2))
    elif measured:
        _print_measured(measured)
    if verdicts["problem"]:
        raise typer.Exit(1)


def _looks(
    config: DaqConfig,
    output: Path,
    udp_host: str,
    faces: tuple[str, int, int | None, int],
    token_file: Path | None,
) -> Findings:
    from ioc.program.doctor.access import look_at_access
    from ioc.program.doctor.memory import look_at_memory
    from ioc.program.doctor.network import look_at_network
    from ioc.program.doctor.ports import look_at_faces, look_at_udp_ports
    from ioc.program.doctor.processor import look_at_processor
    from ioc.program.doctor.rights import look_at_rights
    from ioc.program.doctor.storage import look_at_storage

    layout = config.layout
    ports = layout.udp_ports
    yield from look_at_processor()
    yield from look_at_memory(config)
    yield from look_at_network(udp_host, layout.datagram_bytes if ports else 0, len(ports))
    yield from look_at_udp_ports(udp_host, ports)
    yield from look_at_faces(*faces)
    yield from look_at_access(faces[0], token_file)
    yield from look_at_rights(config)
    yield from look_at_storage(output, config)


def _print_finding(finding: Finding) -> None:
    print(f"{finding.verdict:<8} {finding.subject:<{WIDTH}} {finding.text}", flush=True)
    if finding.cure:
        print(f"{'':<8} {'':<{WIDTH}} > {finding.cure}", flush=True)


def _measure(config: DaqConfig, output: Path, seconds: float, receiver_threads: int) -> SelfTest:
    from ioc.program.doctor.self_test import N_TRIALS, run_self_test

    logging.getLogger("daq_core").setLevel("ERROR")  # whose the files are was said already
    logging.getLogger("daq_core.processes.forks").setLevel("INFO")  # a first start is long
    with shown_progress("starting", N_TRIALS) as progress:
        return run_self_test(config, output.resolve(), seconds, progress, receiver_threads)


def _print_measured(test: SelfTest) -> None:
    print(f"\nmeasured: {test.detector}, sent by these same cores; nothing was lost at these rates:")
    for where, rate in (("without a file", test.to_memory), ("into a file", test.to_file)):
        print(f"  {where:<15} {_rate_text(rate)}")
        print(f"  {'':<15} limit: {rate.limit}")
    if test.n_compared:
        print(f"  ids and status of all images in the file were checked, pixels of {test.n_compared}")


def _rate_text(rate: Reached) -> str:
    return (
        f"{rate.images_per_second:8.1f} images/s  {in_gb(rate.bytes_per_second):>7}/s  "
        f"({rate.n_images} images in {rate.seconds:.1f} s)"
    )
