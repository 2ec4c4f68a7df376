"""The commands that send or keep detector packets: simulate, replay, record. Ctrl-C ends each in order."""

from __future__ import annotations

import inspect
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daq_core.amounts import counted
from daq_core.errors import InvalidRequest, Unavailable
from daq_core.simulating.faults import Chaos, explained
from ioc.access import ipv4
from ioc.program.progress import shown_progress

if TYPE_CHECKING:
    from collections import Counter

    from daq_core.recordings.recorder import RecordReport
    from daq_core.simulating.fault_stage import SentPacket
    from daq_core.simulating.sender import SendReport

Config = Annotated[Path, typer.Option(help="Detector config, as std_daq's JSON.", show_default=False)]
Host = Annotated[str, typer.Option(help="Where the packets go: name or address.", callback=ipv4.sending)]
PortOffset = Annotated[int, typer.Option(help="Added to every port of the config.")]
CHAOS_HELP = "Faults of --chaos, as in --chaos seed=7,loss=0.01,duplicate=0.01:\n\n"
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for scripts.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    panel = "Detector packets"
    about = f"{inspect.getdoc(simulate)}\n\n{CHAOS_HELP}{explained()}"
    app.command(rich_help_panel=panel, help=about)(simulate)
    for command in (replay, record):
        app.command(rich_help_panel=panel)(command)


def simulate(
    config: Config,
    rate: Annotated[
        float, typer.Option(min=0, help="Images a second; 0: as fast as possible.", show_default=False)
    ],
    images: Annotated[int, typer.Option(min=0, help="How many; 0: until Ctrl-C.", show_default=False)],
    host: Host = "127.0.0.1",
    port_offset: PortOffset = 0,
    first_id: Annotated[int, typer.Option(min=0, help="Frame number of the first image.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise in the pictures.")] = 0,
    rows_per_packet: Annotated[
        int | None,
        typer.Option(min=1, help="Of a GigaFRoST, to imitate other senders.", show_default=False),
    ] = None,
    message_format: Annotated[
        Literal["bsread", "array-1.0"] | None,
        typer.Option("--format", help="Of a bsread camera's messages; default: bsread.", show_default=False),
    ] = None,
    compression: Annotated[
        Literal["none", "bitshuffle_lz4", "lz4"] | None,
        typer.Option(help="Of their pixels; default: none.", show_default=False),
    ] = None,
    encoding: Annotated[
        Literal["little", "big"] | None,
        typer.Option(help="Byte order of their pixels; default: little.", show_default=False),
    ] = None,
    chaos: Annotated[
        str | None,
        typer.Option(
            metavar="FAULT=VALUE,...",
            help="Make faults on the way: seed=7,loss=0.01; all of them are listed above.",
            show_default=False,
        ),
    ] = None,
    chaos_log: Annotated[
        Path | None,
        typer.Option(
            help="File to make: a line of JSON for each packet, what was done to it.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send images as the config's detector would: packets over UDP, or a bsread camera's messages.

    A camera's messages go out at the config's own stream_addresses, which the service connects to.
    """
    from daq_core.config import DaqConfig
    from daq_core.receiving.stream_messages import MessageForm
    from daq_core.simulating.simulator import Simulator

    wire = None
    if message_format or compression or encoding:
        wire = MessageForm(message_format or "bsread", compression or "none", encoding or "little")
    if chaos_log is not None and chaos is None:
        raise InvalidRequest("--chaos-log tells what --chaos did: give both, or neither.")
    faults = Chaos.parse(chaos) if chaos is not None else None
    with _packet_log(chaos_log) as tell:
        simulator = Simulator(
            DaqConfig.load(config),
            host=host,
            port_offset=port_offset,
            seed=seed,
            rows_per_packet=rows_per_packet,
            wire=wire,
            chaos=faults,
            tell=tell,
        )
        with shown_progress("sending", images or None) as progress, _until_interrupted() as stop:
            report = simulator.send(images, rate, first_id=first_id, progress=progress, stop=stop)
    _print_sent(report, as_json, simulator.chaos.counts if simulator.chaos is not None else None)


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder with config.json and <UDP port>.dat files.")],
    host: Host = "127.0.0.1",
    port_offset: PortOffset = 0,
    rate: Annotated[float, typer.Option(min=0, help="Frames a second; 0: as fast as possible.")] = 10.0,
    loops: Annotated[int, typer.Option(min=0, help="How many times; 0: until Ctrl-C.")] = 1,
    as_json: Json = False,
) -> None:
    """Send a recording again, datagram for datagram. Frame numbers go on rising from loop to loop."""
    from daq_core.recordings import recording as recordings
    from daq_core.recordings import replay as replays

    loaded = recordings.load_recording(recording)
    with shown_progress("replaying", None) as progress, _until_interrupted() as stop:
        report = replays.replay(
            loaded,
            host=host,
            port_offset=port_offset,
            rate_hz=rate,
            loops=loops,
            progress=progress,
            stop=stop,
        )
    _print_sent(report, as_json)


def record(
    folder: Annotated[Path, typer.Argument(help="Folder to make, for config.json and <UDP port>.dat files.")],
    config: Config,
    images: Annotated[int | None, typer.Option(min=1, help="End after so many complete images.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="End after this time.")] = None,
    udp_host: Annotated[
        str, typer.Option(help="Address the packets arrive at.", callback=ipv4.receiving)
    ] = "0.0.0.0",
    port_offset: Annotated[int, typer.Option(help="Added to every UDP port of the config.")] = 0,
    as_json: Json = False,
) -> None:
    """Keep what a detector sends, datagram for datagram, until Ctrl-C, --images or --seconds."""
    from daq_core.config import DaqConfig
    from daq_core.recordings import recorder as records

    with shown_progress("recording", images) as progress, _until_interrupted() as stop:
        report = records.record(
            DaqConfig.load(config),
            folder,
            udp_host=udp_host,
            port_offset=port_offset,
            n_images=images,
            duration_s=seconds,
            stop=stop,
            progress=progress,
        )
    _print_recorded(report, folder, as_json)


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, instead of breaking off in the middle."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _packet_log(path: Path | None) -> Iterator[Callable[[SentPacket], None] | None]:
    """Give what writes a packet into the log; None without one."""
    if path is None:
        yield None
        return
    try:
        log = path.open("x", encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"the chaos log {path} cannot be made: {error.strerror}.") from None
    with log:
        yield lambda packet: print(json.dumps(packet.as_dict()), file=log)


def _print_sent(report: SendReport, as_json: bool, faults: Counter[str] | None = None) -> None:
    if as_json:
        print(json.dumps(asdict(report) | ({} if faults is None else {"chaos": faults})))
        return
    rate = f" ({report.rate_hz:.1f} a second)" if report.rate_hz else ""
    refused = (
        f"; nobody listened, said the receiver {counted(report.n_refused, 'time')}"
        if report.n_refused
        else ""
    )
    print(
        f"sent {counted(report.n_images, 'image')}, {counted(report.n_packets, 'packet')} "
        f"in {report.seconds:.2f} s{rate}{refused}"
    )
    if faults is not None:
        made = ", ".join(f"{name} {n}" for name, n in sorted(faults.items()))
        print(f"chaos: {made or 'nothing happened'}")


def _print_recorded(report: RecordReport, folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report)))
        return
    drops = f"; the kernel dropped {report.kernel_drops} more" if report.kernel_drops else ""
    print(
        f"recorded {counted(report.n_images, 'complete image')}, {counted(report.n_packets, 'packet')} "
        f"in {report.seconds:.2f} s{drops}: {folder}"
    )
