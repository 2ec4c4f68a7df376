"""The command that looks into a file or a recording: inspect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daq_core.amounts import counted
from daq_core.errors import Unavailable

if TYPE_CHECKING:
    from daq_core.files.contents import FileContents
    from daq_core.recordings.contents import PortContents, RecordingContents

WITHIN_S = 60.0
"""HDF5 may hang on a damaged file."""
SHOWN = 10
"""Ranges, images or frames that are listed; the rest is counted. JSON has all."""
STATUS_WORDS = {
    0: "good",
    1: "with packets missing",
    2: "with modules that disagree on the id",
    3: "in another format than the config's",
}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(rich_help_panel="Detector packets")(inspect)


def inspect(
    path: Annotated[
        Path, typer.Argument(help="HDF5 file of a run, or folder of a recording.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
) -> None:
    """Show what is in a file or a recording: shape, ids, losses of each module, packet headers.

    Also works on a file that is being written, and on one that a killed writer left open.
    """
    contents: FileContents | RecordingContents
    if path.is_dir():
        from daq_core.recordings.contents import read_recording
        from daq_core.recordings.recording import load_recording

        contents = read_recording(load_recording(path))
        lines = _recording_lines(contents)
    else:
        from daq_core.files.contents import read_file
        from daq_core.files.guarded import NotDone, guarded

        try:
            contents = guarded(partial(read_file, path), WITHIN_S)
        except NotDone as ended:
            raise Unavailable(f"{path} cannot be read: HDF5 was looking at it, {ended}.") from None
        lines = _file_lines(contents)
    if as_json:
        print(json.dumps(asdict(contents), indent=2))
        return
    for name, text in lines:
        print(f"{name:<12}{text}")


Lines = Iterator[tuple[str, str]]


def _file_lines(file: FileContents) -> Lines:
    run = file.run
    n_images, height, width = file.shape
    yield "file", file.path
    if file.condition == "being written":
        yield "", "is being written; what follows is what a reader can see now"
    elif file.condition == "left open":
        yield "", f"was not closed by its writer; `std-daq-ioc repair {file.path}` makes it readable"
    yield "detector", f"{run['detector_name']}, {run['detector_type']}, {run['bit_depth']} bit"
    yield "images", f"{n_images} of {height} x {width} pixels (rows x columns), {file.dtype}"
    if file.ids is not None:
        ids = file.ids
        order = "rising" if ids.rising else "not rising"
        repeated = f", {ids.n_repeated} repeated" if ids.n_repeated else ""
        yield "ids", f"{ids.first} to {ids.last}, {order}{repeated}"
        yield "id gaps", _listed([f"{a}" if a == b else f"{a}..{b}" for a, b in ids.gaps])
    for status, n in file.status.items():
        yield "status", f"{status}: {counted(n, 'image')} {STATUS_WORDS.get(status, '')}".rstrip()
    lossy = [f"{n} in image {image_id}" for image_id, n in file.images_with_losses.items()]
    yield "missing", counted(file.missing_packets, "packet") + (f": {_listed(lossy)}" if lossy else "")
    rate = f", {file.rate_hz:.4g} images a second" if file.rate_hz else ""
    yield "time", f"{file.seconds:.3f} s from first to last image{rate}"
    wanted = run["n_images"] or "any number of"
    yield (
        "run",
        f"{run['run_id']}: {run['state']} {run['message']}".rstrip() + f" ({wanted} images asked for)",
    )
    yield "from, to", f"{run['start_time']}, {run['end_time'] or '-'}"
    counters = ", ".join(f"{name} {n if n >= 0 else '?'}" for name, n in run["counters"].items())
    yield "counters", counters if file.condition == "closed" else f"so far: {counters}"
    yield "software", run["software"]


def _recording_lines(recording: RecordingContents) -> Lines:
    yield "recording", recording.folder
    yield (
        "detector",
        f"{recording.detector_name}, {recording.detector_type}, {recording.bit_depth} bit",
    )
    yield (
        "datagrams",
        f"{recording.n_datagrams}, {recording.n_bytes} bytes, on {counted(len(recording.ports), 'port')}",
    )
    span = f" ({recording.first_frame} to {recording.last_frame})" if recording.n_frames else ""
    yield "frames", f"{recording.n_frames}{span}, {recording.n_complete} of them complete"
    yield "missing", counted(recording.missing_packets, "packet")
    for port in recording.ports:
        yield f"port {port.udp_port}", _port_text(port)
    for module, of_frames in recording.losses.items():
        lost = [f"{n} in frame {frame}" for frame, n in of_frames.items()]
        yield f"module {module}", f"misses {counted(sum(of_frames.values()), 'packet')}: {_listed(lost)}"
    for port in recording.ports:
        for i, header in enumerate(port.headers):
            fields = " ".join(f"{name}={value}" for name, value in header.items())
            yield f"{port.udp_port} [{i}]", fields


def _port_text(port: PortContents) -> str:
    sizes = ", ".join(f"{n} of {size} bytes" for size, n in port.sizes.items())
    text = f"module {port.module}: {port.n_datagrams} datagrams"
    if sizes:
        text += f" ({sizes}), frames {port.first_frame} to {port.last_frame}"
    if port.n_repeated:
        text += f", {port.n_repeated} repeated"
    if port.n_malformed:
        text += f", {port.n_malformed} that are no packets of this detector"
    return text


def _listed(items: list[str]) -> str:
    if not items:
        return "none"
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
