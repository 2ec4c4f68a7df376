"""What a run waits for when no image comes: packets, or packets that make images; and the likely cause.

Control asks a few times a second while a run is going on. Nothing here counts: what the
receive threads count is compared with what it was when the last image came.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daq_core.config import DaqConfig
from daq_core.detectors import FORMATS, DetectorFormat, Layout, format_of
from daq_core.detectors.format import whole_datagrams
from daq_core.ring.ring import Ring
from daq_core.ring.words import SocketState, Word

log = logging.getLogger(__name__)

SILENT_S = 5.0
LOOK_EVERY_S = 0.25
MAX_LENGTHS = 4  # that one sentence tells

LENGTHS = {
    form.datagram_bytes: f"{'an' if form.name[0] in 'aeiou' else 'a'} {form.name}'s"
    for form in FORMATS.values()
    if isinstance(form, DetectorFormat) and form.datagram_bytes is not None
}
"""Whose datagrams have a length, where that is known."""
ITS_ADDRESS = "is the detector's own address among the allowed ones?"
FITS = {"pull": "pull is for a camera that pushes", "sub": "sub is for a camera that publishes"}


@dataclass(frozen=True)
class _Counts:
    """What had been counted at some moment."""

    words: Any  # (Word.COUNT,) int64
    ports: Any  # (ports, SocketState.COUNT) int64


class Waiting:
    """One run's wait for images, from now on: :meth:`look` is called again and again.

    now : monotonic seconds
    """

    def __init__(self, ring: Ring, layout: Layout, config: DaqConfig, now: float) -> None:
        self._ring, self._layout, self._config = ring, layout, config
        self._n_images = 0
        self._since, self._next_look = now, now
        self._before = self._counts()
        self._kinds: frozenset[str] = frozenset()  # of what the present sentence says
        self._logged: set[frozenset[str]] = set()
        self.sentence = ""

    def look(self, n_images: int, now: float) -> None:
        """Say in `sentence` what is amiss, "" while images come; of each kind there is one log line.

        Parameters
        ----------
        n_images : images of this run that are to be written, so far
        now : monotonic seconds
        """
        if n_images != self._n_images:
            self._n_images, self._since, self._before = n_images, now, self._counts()
            self._kinds, self.sentence = frozenset(), ""
        elif now - self._since >= SILENT_S and now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self._judge(f"{now - self._since:.0f} s")

    def pause(self) -> None:
        """Begin to wait anew at the next look."""
        self._n_images, self._kinds, self.sentence = -1, frozenset(), ""

    def _counts(self) -> _Counts:
        return _Counts(self._ring.words.copy(), self._ring.sockets.copy())

    def _judge(self, time: str) -> None:
        """Make the sentence anew when something of another kind is amiss; numbers alone change always."""
        found = self._of_packets(time) if self._layout.udp_ports else self._of_messages(time)
        kinds = frozenset(found)
        if kinds == self._kinds:
            return
        self._kinds, self.sentence = kinds, "; ".join(found.values())
        if kinds not in self._logged:
            self._logged.add(kinds)
            log.warning("%s", self.sentence)

    def _of_packets(self, time: str) -> dict[str, str]:
        """Return kind and sentence of all that is amiss."""
        found: dict[str, str] = {}
        words = self._ring.words - self._before.words
        ports = self._ring.sockets - self._before.ports
        n_odd, is_silent = ports[:, SocketState.ODD_LENGTHS], ports[:, SocketState.RECEIVED] == 0
        n_foreign = int(words[Word.FOREIGN])
        if n_odd.any():
            found["lengths"] = "; ".join(self._of_lengths(n_odd))
        if n_foreign:
            found["foreign"] = f"{n_foreign} packets of senders not in --udp-sources: {ITS_ADDRESS}"
        if is_silent.any() and not (n_foreign and is_silent.all()):
            found["silent"] = self._of_silence(is_silent, time)
        if words[Word.DROPPED_IMAGES]:
            found["dropped"] = _without_room(words, time)
        elif not is_silent.all() and not n_odd.any():
            found["no image"] = _without_image(words, time)
        return found

    def _of_lengths(self, n_odd: Any) -> Iterator[str]:
        """Tell the lengths that no packet of the detector has, ports of the same length together."""
        which: dict[int, list[int]] = {}
        for port in n_odd.nonzero()[0].tolist():
            which.setdefault(int(self._ring.sockets[port, SocketState.ODD_LENGTH]), []).append(port)
        kind = self._config.detector_type
        own = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}'s have"
        if format_of(self._config).lengths is not whole_datagrams:
            own += " at most"
        for length, ports in list(which.items())[:MAX_LENGTHS]:
            guess = f"they look like {LENGTHS[length]}" if length in LENGTHS else "another detector's"
            yield (
                f"{n_odd[ports].sum()} datagrams of {length} bytes on {_named(self._layout, ports, 'port')}, "
                f"{own} {self._layout.ports[ports[0]].datagram_bytes}: {guess}; are detector_type and "
                "start_udp_port of the config those of what sends there?"
            )

    def _of_silence(self, is_silent: Any, time: str) -> str:
        ports = is_silent.nonzero()[0].tolist()
        first, last = self._layout.udp_ports[ports[0]], self._layout.udp_ports[ports[-1]]
        seen = f"udp port {first}" if first == last else f"udp portrange {first}-{last}"
        cause = "is the detector armed, and does it send to this machine and port?"
        return (
            f"no packet on {_named(self._layout, ports, 'UDP')} for {time}{self._after}: {cause} "
            f"`tcpdump -ni any {seen}` shows what comes"
        )

    def _of_messages(self, time: str) -> dict[str, str]:
        """Return kind and sentence of what is amiss with a camera that sends messages."""
        addresses = ", ".join(self._config.stream_addresses)
        n_came = int(self._ring.words[Word.RECEIVED] - self._before.words[Word.RECEIVED])
        if n_came == 0:
            fits = f"stream_socket {FITS[self._config.stream_socket]}"
            cause = f"is the camera sending, and is that its address? {fits}"
            return {"silent": f"no message on {addresses} for {time}{self._after}: {cause}"}
        cause = "do bit_depth and size of the config fit the camera? The log says why a message was refused"
        return {"no image": f"{n_came} messages on {addresses} in {time}, and no image of this run: {cause}"}

    @property
    def _after(self) -> str:
        return f" after image {self._n_images}" if self._n_images else ""


def _without_image(words: Any, time: str) -> str:
    """Tell what became of packets that made no image."""
    fates = {
        "malformed": Word.MALFORMED,
        "late": Word.LATE,
        "sent twice": Word.DUPLICATE,
        "without room in the ring": Word.UNPLACED,
    }
    told = ", ".join(f"{words[word]} {fate}" for fate, word in fates.items() if words[word])
    return (
        f"{words[Word.RECEIVED]} packets in {time} and no image of them{f' ({told})' if told else ''}: "
        "do detector_type and bit_depth of the config fit the detector?"
    )


def _without_room(words: Any, time: str) -> str:
    """Tell why images came and none of them is kept."""
    cause = "the image ring is full: the disk does not keep up"
    if words[Word.INCOMPLETE_IMAGES]:
        cause = "they lack packets, and incomplete_images of the config is drop"
    return f"{words[Word.DROPPED_IMAGES]} images in {time} and none of them is kept: {cause}"


def _named(layout: Layout, ports: list[int], what: str) -> str:
    """Name UDP ports by where they are in the layout: "UDP 50100", "ports 50100 to 50103 and 50110"."""
    numbers = [layout.udp_ports[port] for port in ports]
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    names = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    many = "s" if what == "port" and len(numbers) > 1 else ""
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return f"{what}{many} {listed}"
