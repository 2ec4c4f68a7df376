"""What is in a recording: datagrams, frames, what each module lost. For people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daq_core.recordings.packet_reader import Numbers, PacketReader, each_unit
from daq_core.recordings.recording import PortRecording, Recording

SHOWN_HEADERS = 3


@dataclass(frozen=True)
class PortContents:
    """What one UDP port received."""

    udp_port: int
    module: int
    n_datagrams: int
    sizes: dict[int, int]  # bytes of a datagram → how many
    first_frame: int | None
    last_frame: int | None
    n_malformed: int
    """Datagrams that are no packets of the config's detector."""
    n_repeated: int
    """Packets that came again."""
    headers: list[dict[str, int]]
    """The fields of the first few datagrams, by their names."""


@dataclass(frozen=True)
class RecordingContents:
    """What :func:`read_recording` found."""

    folder: str
    detector_name: str
    detector_type: str
    bit_depth: int
    n_datagrams: int
    n_bytes: int
    n_frames: int
    n_complete: int
    first_frame: int | None
    last_frame: int | None
    missing_packets: int
    losses: dict[int, dict[int, int]]
    """Module → frame number → packets of it that are missing; what is complete is left out."""
    ports: list[PortContents]


@dataclass(frozen=True)
class _Arrivals:
    """The packets of one port.

    frames : (n,) int64, frame number of each
    first  : (n,) int64, its first unit in the image's bitmap
    n      : (n,) int64, its number of units
    """

    contents: PortContents
    frames: Numbers
    first: Numbers
    n: Numbers


def read_recording(recording: Recording) -> RecordingContents:
    """Look through a recording; a frame is what has one frame number."""
    reader = PacketReader(recording.config)
    ports = [_read_port(reader, i, port) for i, port in enumerate(recording.ports)]
    frames = np.unique(np.concatenate([port.frames for port in ports]))
    losses = _losses(reader, ports, frames)
    incomplete = {frame for of_module in losses.values() for frame in of_module}
    return RecordingContents(
        folder=str(recording.folder),
        detector_name=recording.config.detector_name,
        detector_type=recording.config.detector_type,
        bit_depth=recording.config.bit_depth,
        n_datagrams=recording.n_packets,
        n_bytes=sum(int(port.lengths.sum()) for port in recording.ports),
        n_frames=len(frames),
        n_complete=len(frames) - len(incomplete),
        first_frame=int(frames[0]) if len(frames) else None,
        last_frame=int(frames[-1]) if len(frames) else None,
        missing_packets=sum(sum(of_module.values()) for of_module in losses.values()),
        losses=losses,
        ports=[port.contents for port in ports],
    )


def _read_port(reader: PacketReader, i: int, port: PortRecording) -> _Arrivals:
    here = reader.layout.ports[i]
    headers = reader.headers(port.data, port.offsets, port.lengths)
    first, n = reader.units(i, headers, port.lengths)
    good = n > 0
    frames = port.frames[good]
    packets = np.stack([frames, first[good]], axis=1)
    sizes, counts = np.unique(port.lengths, return_counts=True)
    shown = [
        dict(zip(headers.dtype.names or (), one.tolist(), strict=True)) for one in headers[:SHOWN_HEADERS]
    ]
    contents = PortContents(
        udp_port=port.udp_port,
        module=int(here.module),
        n_datagrams=len(port.lengths),
        sizes=dict(zip(sizes.tolist(), counts.tolist(), strict=True)),
        first_frame=int(frames[0]) if len(frames) else None,
        last_frame=int(frames[-1]) if len(frames) else None,
        n_malformed=int((~good).sum()),
        n_repeated=len(packets) - len(np.unique(packets, axis=0)),
        headers=shown,
    )
    return _Arrivals(contents, frames, first[good], n[good])


def _losses(
    reader: PacketReader, ports: list[_Arrivals], frames: npt.NDArray[np.int64]
) -> dict[int, dict[int, int]]:
    """Return module → frame → missing packets."""
    layout = reader.layout
    # Where packets have several units, the fullest one tells how many this sender puts into one.
    per_packet = max((int(port.n.max()) for port in ports if len(port.n)), default=1)
    losses: dict[int, dict[int, int]] = {}
    for first_unit in np.unique(layout.ports["first_unit"]):
        sharing = np.flatnonzero(layout.ports["first_unit"] == first_unit)  # in turn, frame by frame
        here = layout.ports[sharing[0]]
        n_arrived = _units_of_frames([ports[i] for i in sharing], frames)
        n_missing = -(-(int(here.n_units) - n_arrived) // per_packet)
        of_module = losses.setdefault(int(here.module), {})
        for k in np.flatnonzero(n_missing).tolist():
            frame = int(frames[k])
            of_module[frame] = of_module.get(frame, 0) + int(n_missing[k])
    return {module: of_frames for module, of_frames in losses.items() if of_frames}


def _units_of_frames(ports: list[_Arrivals], frames: npt.NDArray[np.int64]) -> Numbers:
    """Return (frames,) int64: how many different units of each frame came to any of the ports."""
    units = [np.stack([np.repeat(p.frames, p.n), each_unit(p.first, p.n)], axis=1) for p in ports]
    once = np.unique(np.concatenate(units), axis=0)
    return np.bincount(np.searchsorted(frames, once[:, 0]), minlength=len(frames))
