"""Puts images together from what was sent, packet by packet, and compares files with them: invariants 2, 3.

What may be asked of an image depends on how it was sent. A *prompt* one, whose
packets all went out in one go between the begin and the end of the run, each to one
port, under a frame number of its own, has to be in the file exactly: every packet that
reached the socket, nothing else. Of the others (delayed packets, frame numbers
used twice, a packet at two ports of one link) it is only asked that whatever is in
the file was sent, and is counted truthfully.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle.units import Heading, Unit, Units, packets_lacking, units_of
from tests.system.evidence import Images, RunEvidence, Sent

OTHER_FORMAT = 3

REARM_PAUSE_S = 0.015  # a detector that is armed again pauses at least so long

Places = dict[Unit, Any]
Candidates = dict[tuple[int, Unit], list[bytes]]  # all pixels that went out under a frame number, of a unit


@dataclass
class SentImage:
    """One image of the sender, as far as it went out well-formed."""

    frame: int
    first: int  # place of its first and last datagram in what was sent
    last: int
    first_s: float
    last_s: float
    units: dict[Unit, bytes] = field(default_factory=dict)
    datagrams: dict[Unit, Unit] = field(default_factory=dict)  # unit → first unit of the datagram it was in
    ports: dict[Unit, int] = field(default_factory=dict)  # by the first unit of each datagram
    is_proven: bool = False  # a packet of it has a number that the config's frames do not have
    is_raced: bool = False  # two ports brought one packet: nobody knows which was read first
    is_first: bool = (
        False  # of a port in the run: to a receiver that has seen nothing yet it may be in flight
    )
    n_datagrams: int = 0
    is_alone: bool = False  # far ahead of what a port showed before, and the port's next packet is not

    def take(self, port: int, heading: Heading, pixels: dict[Unit, bytes]) -> None:
        """Of several packets of one number the first counts: a port keeps their order."""
        self.n_datagrams += 1
        if self.ports.setdefault(heading.first, port) != port:
            self.is_raced = True
        if heading.first not in self.units:
            self.units |= pixels
            self.datagrams |= dict.fromkeys(pixels, heading.first)


@dataclass
class _Alone:
    """Tells of numbers that a port showed far ahead of the others that nothing came after them.

    A packet that is delayed until the numbers have fallen is not one: its image was there before.
    """

    window: int
    newest: dict[int, int] = field(default_factory=dict)  # of each port
    far: dict[int, SentImage] = field(default_factory=dict)  # of each port, until its next packet
    shown: set[tuple[int, int]] = field(default_factory=set)  # port and image, not alone

    def hear(self, port: int, image: SentImage) -> None:
        if (port, id(image)) in self.shown:
            return
        before = self.far.pop(port, None)
        if before is not None:
            if 0 <= image.frame - before.frame <= self.window:
                before.is_alone = False
                self.newest[port] = before.frame
                self.shown.add((port, id(before)))
            else:
                before.is_alone = True
        newest = self.newest.get(port, image.frame)
        if image.frame > newest + self.window:
            image.is_alone = True  # until another says the same
            self.far[port] = image
        else:
            self.newest[port] = image.frame
            self.shown.add((port, id(image)))


@dataclass
class Sendings:
    """What went out well-formed, from an address that counts."""

    images: dict[tuple[int, int], SentImage]  # by the sender's image and its frame number
    candidates: Candidates
    proven: set[int]  # frame numbers under which a packet went out that the config's frames do not have
    sizes: set[int]  # units that a receiver may take a full packet to have


def sendings(config: Any, run: RunEvidence) -> Sendings:
    """Put the images of the sender together."""
    units = units_of(config)
    images: dict[tuple[int, int], SentImage] = {}
    alone = _Alone(config["module_sync_queue_size"])
    candidates: Candidates = defaultdict(list)
    headings: list[Heading] = []
    heard: set[int] = set()
    proofs: list[tuple[int, int, Sent]] = []  # place, frame number
    for place, sent in enumerate(run.sent):
        if sent.is_foreign:
            continue
        if (heading := units.heading(sent.port, sent.data)) is None:
            if (frame := units.proves(sent.port, sent.data)) is not None:
                proofs.append((place, frame, sent))
            continue
        headings.append(heading)
        pixels = units.pixels(heading, sent.data)
        for unit, part in pixels.items():
            candidates[heading.frame, unit].append(part)
        new = SentImage(heading.frame, place, place, sent.from_s, sent.until_s)
        image = images.setdefault((sent.image, heading.frame), new)
        image.last, image.last_s = place, sent.until_s
        image.take(sent.port, heading, pixels)
        image.is_first |= sent.port not in heard
        heard.add(sent.port)
        alone.hear(sent.port, image)
    for place, frame, sent in proofs:
        found = images.get((sent.image, frame))
        if found is not None:
            found.is_proven = True
            found.first, found.first_s = min((found.first, found.first_s), (place, sent.from_s))
            found.last, found.last_s = max((found.last, found.last_s), (place, sent.until_s))
    return Sendings(images, candidates, {frame for _, frame, _ in proofs}, units.believed_sizes(headings))


def numbers_fall(config: Any, run: RunEvidence) -> bool:
    """Tell whether some port's images ever had a lower number than one before, stray packets left out."""
    newest: dict[int, int] = {}
    for image in sorted(sendings(config, run).images.values(), key=lambda image: image.first):
        if image.is_alone:
            continue
        for port in set(image.ports.values()):
            if image.frame <= newest.get(port, -1):
                return True
            newest[port] = image.frame
    return False


def judge_images(config: Any, run: RunEvidence, file: Images) -> Iterator[tuple[int, str]]:
    lengths = {len(file.pixels), *map(len, file.columns.values())}
    if len(lengths) > 1:
        yield 4, f"the datasets have different lengths: {sorted(lengths)}"
        return
    units = units_of(config)
    places, sent = units.places(), sendings(config, run)
    shown = [_present(places, pixels) for pixels in file.pixels]
    ids = file.columns["image_id"].tolist()
    yield from _truth(units, places, file, ids, shown, sent)
    yield from _once(sent, ids, shown)
    yield from _alone(sent, ids)
    yield from _armed_again(config, run, len(places), list(sent.images.values()), ids, shown)
    yield from _completeness(config, run, len(places), sent.images, ids, file, shown)


def _present(places: Places, pixels: npt.NDArray[Any]) -> dict[Unit, bytes]:
    """Return the pixels of each unit that has any."""
    found = {unit: pixels[where] for unit, where in places.items()}
    return {unit: part.tobytes() for unit, part in found.items() if part.any()}


def _truth(
    units: Units,
    places: Places,
    file: Images,
    ids: list[int],
    shown: list[dict[Unit, bytes]],
    sent: Sendings,
) -> Iterator[tuple[int, str]]:
    """Whatever is in the file was sent, and what was not is zero, counted, and not called good."""
    is_pixel = np.zeros(file.pixels.shape[1:], bool)
    for pixels in places.values():
        is_pixel[pixels] = True
    for row, (image_id, parts) in enumerate(zip(ids, shown, strict=True)):
        where = f"image {row} (id {image_id})"
        if file.pixels[row][~is_pixel].any():
            yield 2, f"{where}: pixels between the modules are not 0"
        absent = places.keys() - parts.keys()
        for unit, part in parts.items():
            known = sent.candidates.get((image_id, unit), [])
            if part not in known:
                what = f"module {unit[0]} {units.word} {unit[1]}"
                yield (2 if known else 3), f"{where}: the pixels of {what} were never sent"
        dark = {u for u in absent if any(not any(p) for p in sent.candidates.get((image_id, u), []))}
        least = packets_lacking(absent - dark, max(sent.sizes))  # the dark ones may have been sent as that
        most = packets_lacking(absent, min(sent.sizes))
        n_missing, status = int(file.columns["missing_packets"][row]), int(file.columns["status"][row])
        if not least <= n_missing <= most:
            yield 3, f"{where}: {most} packets are missing, it says {n_missing}"
        if status != (n_missing > 0) and (status != OTHER_FORMAT or image_id not in sent.proven):
            yield 3, f"{where}: status {status} with {n_missing} packets missing"


def _once(sent: Sendings, ids: list[int], shown: list[dict[Unit, bytes]]) -> Iterator[tuple[int, str]]:
    """Nothing is in the file more often than it was sent; where numbers only rise, each id is there once."""
    used = Counter((image_id, unit) for image_id, parts in zip(ids, shown, strict=True) for unit in parts)
    for (image_id, unit), n in used.items():
        n_sent = len(sent.candidates.get((image_id, unit), []))
        if 0 < n_sent < n:
            yield 2, f"image id {image_id}, {unit}: {n} times in the file, sent {n_sent} times"
    frames = [image.frame for image in sorted(sent.images.values(), key=lambda image: image.first)]
    is_rising = all(a < b for a, b in itertools.pairwise(frames))
    for image_id, n in Counter(ids).items():
        if n > 1 and is_rising:
            yield 2, f"image id {image_id} is {n} times in the file"


def _alone(sent: Sendings, ids: list[int]) -> Iterator[tuple[int, str]]:
    """A single packet with a number far ahead is no image."""
    n_sent = Counter(image.frame for image in sent.images.values())
    for image in sent.images.values():
        if image.is_alone and image.n_datagrams == 1 and n_sent[image.frame] == 1 and image.frame in ids:
            yield 2, f"image id {image.frame} is in the file, but only a stray packet had that number"


def _armed_again(
    config: Any,
    run: RunEvidence,
    n_units: int,
    images: list[SentImage],
    ids: list[int],
    shown: list[dict[Unit, bytes]],
) -> Iterator[tuple[int, str]]:
    """A detector that begins anew after a pause loses nothing by that, where nothing else happened."""
    if run.before is None or run.after is None or run.receiver_lost or run.stopped_s is not None:
        return
    if run.after.kernel_drops > run.before.kernel_drops or run.losses.get("dropped_images"):
        return
    in_order = sorted(images, key=lambda image: image.first)
    falls = [(a, b) for a, b in itertools.pairwise(in_order) if b.frame <= a.frame]
    if not falls or any(b.first_s - a.last_s < REARM_PAUSE_S for a, b in falls):
        return
    n_due = len(in_order)
    if run.n_images and len(ids) >= run.n_images:
        n_due = len(ids) - int(config["module_sync_queue_size"])
    due: Counter[tuple[int, bytes]] = Counter()
    for image in in_order[: max(n_due, 0)]:
        if len(image.units) < n_units or image.first_s <= run.armed_s or image.is_raced or image.is_alone:
            break  # what comes after it may be put into it, as long as it waits
        due[image.frame, _digest(image.units)] += 1
    found = Counter((image_id, _digest(parts)) for image_id, parts in zip(ids, shown, strict=True))
    if lacking := due - found:
        yield 2, f"armed again {len(falls)} times: {lacking.total()} images lack, one of id {min(lacking)[0]}"


def _digest(units: dict[Unit, bytes]) -> bytes:
    """Return a digest of an image's pixels, the dark ones left out."""
    lit = sorted((unit, part) for unit, part in units.items() if any(part))
    return hashlib.sha256(b"".join(str(unit).encode() + part for unit, part in lit)).digest()


def _completeness(
    config: Any,
    run: RunEvidence,
    n_units: int,
    images: dict[tuple[int, int], SentImage],
    ids: list[int],
    file: Images,
    shown: list[dict[Unit, bytes]],
) -> Iterator[tuple[int, str]]:
    """Each prompt image is there as it was sent, but for what kernel and ring have counted as dropped."""
    if run.before is None or run.after is None or run.receiver_lost:
        return  # what reached a socket is not known
    if any(end.acquisition != "FINISHED" for end in run.ends.values()):
        return  # images that were not written when it failed are told by n_write_completed
    drops_incomplete = config.get("incomplete_images") == "drop"
    n_drops = run.after.kernel_drops - run.before.kernel_drops
    n_given_up = run.losses["dropped_images"] - (run.losses["incomplete_images"] if drops_incomplete else 0)
    rows: dict[int, int] = {}
    for row, image_id in enumerate(ids):  # a late packet opens a second one after a restart
        if image_id not in rows or len(shown[row]) > len(shown[rows[image_id]]):
            rows[image_id] = row
    # What went out before an image that is whole in the file has been read before the file was closed.
    frames = Counter(image.frame for image in images.values())
    whole = [i for i in images.values() if len(i.units) == n_units and i.frame in rows]
    whole_until = max((image.first for image in whole if frames[image.frame] == 1), default=0)
    absent, short = [], 0
    for image, is_due in _prompt(config, run, images, ids, n_units):
        row = rows.get(image.frame)
        if image.is_proven and row is not None and image.last < whole_until and n_drops == 0:
            status = int(file.columns["status"][row])
            if status != OTHER_FORMAT:
                yield 2, f"image id {image.frame} has another format than the config's, and status {status}"
        is_whole = len(image.units) == n_units
        if row is None:
            # A receiver that knows nothing takes a frame without its first packet only if all the rest comes.
            if is_due and (is_whole or not (drops_incomplete or image.is_first)):
                absent.append(image.frame)
        elif drops_incomplete and not is_whole:
            yield 3, f"image id {image.frame} lacks packets and is in the file: they were to be left out"
        elif shown[row] != (expected := {u: p for u, p in image.units.items() if any(p)}):
            differing = [u for u in expected if u in shown[row] and shown[row][u] != expected[u]]
            dropped = {image.datagrams[u] for u in differing}  # so that the next of its number was the first
            if len(dropped) > n_drops:
                yield 2, f"image id {image.frame}: {differing[0]} is not the first that was sent"
            lacking = len({image.datagrams[u] for u in expected.keys() - shown[row].keys()})
            short += lacking + len(dropped)
            if lacking > n_drops:
                yield 2, f"image id {image.frame} arrived with {lacking} packets more than are in the file"
    if n_drops == 0 and len(absent) > n_given_up:
        what = "whole" if not drops_incomplete else "wanted"
        yield 2, f"{len(absent)} {what} images are not in the file ({absent[:5]} …), {n_given_up} are counted"
    if short > n_drops:
        yield 3, f"{short} packets are missing in the file, the kernel dropped {n_drops}"


def _prompt(
    config: Any, run: RunEvidence, images: dict[tuple[int, int], SentImage], ids: list[int], n_units: int
) -> Iterator[tuple[SentImage, bool]]:
    """Yield the images of which it is known how they have to be in the file, and whether they have to."""
    frames = Counter(image.frame for image in images.values())
    in_order = sorted(images.values(), key=lambda image: image.first)
    window = config["module_sync_queue_size"]
    end = len(in_order)
    if run.n_images and len(ids) >= run.n_images:  # it ended when it had enough of them
        found = {image_id for image_id in ids if frames[image_id] == 1}  # not sent once more, later
        end = max((i for i, image in enumerate(in_order) if image.frame in found), default=0) - window
    n_begun = np.searchsorted([image.first for image in in_order], [image.last for image in in_order])
    for i, image in enumerate(in_order):
        is_in_run = image.first_s > run.armed_s and (run.stopped_s is None or image.last_s < run.stopped_s)
        is_quick = (
            image.last_s - image.first_s < config["image_timeout_s"] / 2 and n_begun[i] - i < window / 4
        )
        if frames[image.frame] == 1 and is_in_run and is_quick and not (image.is_raced or image.is_alone):
            # A stop leaves out what still waits for packets.
            waits_s = 0.0 if len(image.units) == n_units else 2 * config["image_timeout_s"]
            is_over = run.stopped_s is None or image.last_s + waits_s < run.stopped_s
            yield image, i < end and is_over
