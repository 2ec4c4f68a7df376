"""The chaos stage: between packed images and the wire, it makes the faults of :mod:`simulating.faults`.

It takes each image's datagrams, and gives out one :class:`daq_core.simulating.sender.Burst`
an image, with packets lost, changed, moved, sent again or sent by somebody else. Of
everything it did it keeps count, and tells whoever asks of each single packet: what
was really sent is what a receiver has to be judged by.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daq_core.detectors import DetectorFormat, Layout
from daq_core.errors import InvalidRequest
from daq_core.simulating.faults import PACKET_FAULTS, Chaos
from daq_core.simulating.sender import Burst, port_order

MAX_HELD = 3  # images that a late or delayed packet waits
MAX_BURST = 8
MAX_AHEAD, MAX_BACK = 1000, 100
WRAP_AFTER = 3  # images before the frame number begins again
FAR = 10_000  # what a stray frame number is ahead, at least
APART, LAG = 1000, 80  # frame numbers, and images, that a module is out of step
REARM_PAUSE_S = 0.02
ONE_IMAGE_PAUSE_S = 0.06  # behind an arm of one image: the same number sooner is taken for its copy


class SentPacket(NamedTuple):
    """One packet, and what was done to it; also one that was not sent.

    What is done to a packet's copy is said of the copy.
    """

    time_s: float  # monotonic, when its image began to be sent
    image_id: int  # of the picture in it, counted without jumps
    frame: int  # the frame number in its header
    port: int  # where it went: place in the layout's ports
    place: int  # within its port's part of the image, from 0
    faults: tuple[str, ...]
    datagram: npt.NDArray[np.uint8] | None  # as it was sent; None: it was not

    def as_dict(self) -> dict[str, Any]:
        """Return it for people, without its pixels."""
        return {
            "image": self.image_id,
            "frame": self.frame,
            "port": self.port,
            "packet": self.place,
            "bytes": None if self.datagram is None else len(self.datagram),
            "faults": list(self.faults),
        }


@dataclass(eq=False)
class _Packet:
    """A packet on its way through the stage."""

    image_id: int
    frame: int
    port: int
    place: int
    datagram: npt.NDArray[np.uint8]
    faults: tuple[str, ...] = ()

    def copy(self, fault: str) -> _Packet:
        return _Packet(self.image_id, self.frame, self.port, self.place, self.datagram.copy(), (fault,))

    @property
    def position(self) -> tuple[int, int, int]:
        return self.image_id, self.port, self.place

    @property
    def is_foreign(self) -> bool:
        return "foreign" in self.faults

    def as_sent(self, time_s: float, datagram: npt.NDArray[np.uint8] | None) -> SentPacket:
        return SentPacket(time_s, self.image_id, self.frame, self.port, self.place, self.faults, datagram)


Image = tuple[int, int, list[npt.NDArray[np.uint8]], list[npt.NDArray[np.int64]]]
"""Image id, frame number, datagrams and their lengths of each port."""


class ChaosStage:
    """The faults of one :class:`Chaos` in the packets of one detector.

    Parameters
    ----------
    tell : called with every packet, in the order of sending

    Attributes
    ----------
    counts : how often each fault was made

    Raises
    ------
    InvalidRequest
        A fault that this detector cannot have.
    """

    def __init__(
        self,
        chaos: Chaos,
        form: DetectorFormat,
        layout: Layout,
        tell: Callable[[SentPacket], None] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._chaos, self._form, self._layout = chaos, form, layout
        self._tell = tell
        self._random = np.random.default_rng(chaos.seed)
        self._chances = np.array([getattr(chaos, fault) for fault in PACKET_FAULTS])
        self._number_span: int = 2 ** (8 * form.header["frame_number"].itemsize)
        self._header_bytes = form.header.itemsize
        self._added = 0  # to an image's id, for its frame number
        self._waiting: list[tuple[int, _Packet]] = []  # until the image of that place
        self._held: list[_Packet] = []  # of a burst
        self._burst_left = 0  # images until the present burst goes out
        self._lost: list[_Packet] = []  # not told yet
        self._first = (0, 0)  # image id and frame number with which the detector was armed
        self._is_armed_again = False  # before the image that was asked for last
        self._n_in_arm = 0  # images since it was armed
        self._pause_s = REARM_PAUSE_S
        for name in ("silent", "apart", "lag"):
            module = getattr(chaos, name)
            if module is not None and module not in layout.modules:
                modules = ", ".join(map(str, layout.modules))
                raise InvalidRequest(f"chaos {name}={module}: there is no such module; there are {modules}.")
        if chaos.wrong_port and len(layout.ports) < 2:
            raise InvalidRequest("chaos wrong_port needs a detector with two UDP ports or more.")

    def frame_of(self, image_id: int, *, is_first: bool) -> int:
        """Return the frame number of the next image, jumps and all."""
        chaos, chance = self._chaos, self._random.random(3)
        step = self._layout.turns  # where even and odd images have their own ports, they stay so
        if is_first and chaos.wrap:
            self._jump_to(self._number_span - WRAP_AFTER, image_id)
        elif not is_first and chaos.rearm and self._random.random() < chaos.rearm:
            self.counts["rearm"] += 1
            self._is_armed_again = True
            self._pause_s = ONE_IMAGE_PAUSE_S if self._n_in_arm == 1 else REARM_PAUSE_S
            self._n_in_arm = 0
            first_id, first_added = self._first
            self._added = first_added - (image_id - first_id) // step * step
        elif not is_first and chance[0] < chaos.restart:
            self.counts["restart"] += 1
            self._added = -image_id // step * step
        elif not is_first and chance[1] < chaos.back:
            self.counts["back"] += 1
            self._added -= step * int(self._random.integers(1, MAX_BACK + 1))
        elif not is_first and chance[2] < chaos.ahead:
            self.counts["ahead"] += 1
            self._added += step * int(self._random.integers(1, MAX_AHEAD + 1))
        self._n_in_arm += 1
        if is_first:
            self._first = image_id, self._added
        frame: int = (image_id + self._added) % self._number_span
        return frame

    def _jump_to(self, frame: int, image_id: int) -> None:
        self.counts["wrap"] += 1
        step = self._layout.turns
        self._added = (frame - image_id) // step * step

    def bursts(self, images: Iterable[Image]) -> Iterator[Burst]:
        """Yield what goes out in the place of each image; the last has what still waits."""
        place, coming = 0, iter(images)
        image = next(coming, None)
        while image is not None:
            mangled = self._mangled(place, image)  # before the next is asked for: it uses the same memory
            self._is_armed_again = False
            following = next(coming, None)
            if following is None and self._chaos.lose_last:
                self._lose_last(mangled)
            is_last = following is None or self._is_armed_again
            yield self._burst(*self._with_waiting(place, mangled, is_last=is_last))
            if self._is_armed_again:
                time.sleep(self._pause_s)
            place, image = place + 1, following

    def _mangled(self, place: int, image: Image) -> list[_Packet]:
        """Return the packets of an image as they go out now; those that wait are put aside."""
        image_id, frame, datagrams, lengths = image
        packets = []
        copies = [port.copy() for port in datagrams]  # which may wait, while the next image is stamped
        for port, i in port_order([len(port) for port in copies]):
            packet = _Packet(image_id, frame, port, i, copies[port][i, : lengths[port][i]])
            module = self._layout.modules[self._layout.ports[port].module_index]
            if module == self._chaos.apart:
                self._renumber(packet, APART, "apart")
            if module == self._chaos.silent:
                self._drop(packet, "silent")
            elif module == self._chaos.lag:
                packet.faults += ("lag",)
                self.counts["lag"] += 1
                self._waiting.append((place + LAG, packet))
            else:
                packets.append(packet)
        if self._random.random() < self._chaos.last_first and packets:
            self.counts["last_first"] += 1
            last = {packet.port: packet for packet in packets}.values()
            packets = [*last, *(packet for packet in packets if packet not in last)]
        hits = self._random.random((len(packets), len(self._chances))) < self._chances
        names = list(PACKET_FAULTS)
        outgoing: list[_Packet] = []
        for packet, hit in zip(packets, hits, strict=True):
            if hit.any():
                faults = [name for name, is_hit in zip(names, hit, strict=True) if is_hit]
                self._strike(place, packet, faults, outgoing)
            else:
                outgoing.append(packet)
        return outgoing

    def _strike(self, place: int, packet: _Packet, faults: list[str], outgoing: list[_Packet]) -> None:
        """Make one packet's faults; what of it goes out now is added to `outgoing`."""
        if "loss" in faults:
            self._drop(packet, "loss")
            return
        if "foreign" in faults:
            outgoing.append(self._change(packet.copy("foreign"), "corrupt", count=False))
            self.counts["foreign"] += 1
        stray = packet.copy("stray") if "stray" in faults else None
        for fault in ("corrupt", "truncate", "oversize", "number", "wrong_port"):
            if fault in faults:
                self._change(packet, fault)
        for fault in ("duplicate", "late"):
            if fault in faults:
                self.counts[fault] += 1
        if "delay" in faults:
            self._wait(place, packet, "delay")
        elif "reorder" in faults and outgoing:
            packet.faults += ("reorder",)
            self.counts["reorder"] += 1
            outgoing.insert(int(self._random.integers(len(outgoing))), packet)
        else:
            outgoing.append(packet)
        if "duplicate" in faults:
            outgoing.append(packet.copy("duplicate"))
        if "late" in faults:
            self._wait(place, packet.copy("late"), "")
        if stray is not None:
            far = int(self._random.integers(FAR, 100 * FAR)) // self._layout.turns * self._layout.turns
            stray.faults = ()
            self._renumber(stray, far, "stray")
            outgoing.append(stray)

    def _renumber(self, packet: _Packet, by: int, fault: str) -> None:
        """Put a packet under a higher frame number."""
        packet.frame = (packet.frame + by) % self._number_span
        packet.datagram[: self._header_bytes].view(self._form.header)["frame_number"] = packet.frame
        packet.faults += (fault,)
        self.counts[fault] += 1

    def _wait(self, place: int, packet: _Packet, fault: str) -> None:
        if fault:
            packet.faults += (fault,)
            self.counts[fault] += 1
        self._waiting.append((place + int(self._random.integers(1, MAX_HELD + 1)), packet))

    def _change(self, packet: _Packet, fault: str, *, count: bool = True) -> _Packet:
        """Change a packet in place."""
        random, datagram, header = self._random, packet.datagram, self._header_bytes
        if fault == "corrupt" and len(datagram) > header:
            datagram[random.integers(header, len(datagram))] ^= np.uint8(random.integers(1, 256))
        elif fault == "truncate":
            packet.datagram = datagram[: random.integers(len(datagram))]
        elif fault == "oversize":
            more = random.integers(0, 256, int(random.integers(1, 9)), np.uint8)
            packet.datagram = np.concatenate([datagram, more])
        elif fault == "number" and len(datagram) >= header:
            fields = datagram[:header].view(self._form.header)
            name = "packet_number" if "packet_number" in (self._form.header.names or ()) else "first_row"
            fields[name] = np.iinfo(fields[name].dtype).max
        elif fault == "wrong_port":
            packet.port = (packet.port + int(random.integers(1, len(self._layout.ports)))) % len(
                self._layout.ports
            )
        if count:
            packet.faults += (fault,)
            self.counts[fault] += 1
        return packet

    def _lose_last(self, packets: list[_Packet]) -> None:
        """Lose the last packet of the last image, and what there is of it besides."""
        if not packets:
            return
        place = max(packet.position for packet in packets)
        for packet in [packet for packet in packets if packet.position == place]:
            packets.remove(packet)
            self._drop(packet, "lose_last")
        self._waiting = [(until, packet) for until, packet in self._waiting if packet.position != place]

    def _with_waiting(
        self, place: int, packets: list[_Packet], *, is_last: bool
    ) -> tuple[list[_Packet], bool]:
        """Return what goes out in an image's place, with what waited for it; and whether all at once."""
        packets = packets + [packet for until, packet in self._waiting if until <= place or is_last]
        self._waiting = [(until, packet) for until, packet in self._waiting if until > place and not is_last]
        if self._burst_left == 0 and self._random.random() < self._chaos.burst:
            self.counts["burst"] += 1
            self._burst_left = int(self._random.integers(2, MAX_BURST + 1))
        if self._burst_left == 0:
            return packets, False
        self._burst_left -= 1
        self._held += packets
        if self._burst_left and not is_last:
            return [], False
        held, self._held = self._held, []
        return held, True

    def _drop(self, packet: _Packet, fault: str) -> None:
        self.counts[fault] += 1
        packet.faults += (fault,)
        self._lost.append(packet)

    def _burst(self, packets: list[_Packet], at_once: bool) -> Burst:
        lost, self._lost = self._lost, []
        n_ports = len(self._layout.ports)
        return Burst.in_order(
            [packet.datagram for packet in packets],
            [packet.port + n_ports * packet.is_foreign for packet in packets],
            at_once=at_once,
            announce=lambda: self._announce(lost, packets),
        )

    def _announce(self, lost: list[_Packet], packets: list[_Packet]) -> None:
        """Tell of all packets of a burst, at the moment when it goes out."""
        if self._tell is None:
            return
        now = time.monotonic()
        for packet in lost:
            self._tell(packet.as_sent(now, None))
        for packet in packets:
            self._tell(packet.as_sent(now, packet.datagram))
