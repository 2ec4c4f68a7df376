"""Puts images together from what was sent, packet by packet, and compares files with them: invariants 2, 3.

What may be asked of an image depends on how it was sent. A *prompt* one, whose
packets all went out in one go between the begin and the end of the run, under a
frame number of its own, has to be in the file exactly: every packet that
reached the socket, nothing else. Of the others (delayed packets, frame numbers
used twice) it is only asked that whatever is in the file was sent, and is counted
truthfully.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle.packets import HEADER, PAYLOAD_BYTES, packet_numbers, pixel_places
from tests.system.evidence import Images, RunEvidence, Sent

Unit = tuple[int, int]  # module, packet number


def read_datagram(config: Any, sent: Sent) -> tuple[int, Unit, bytes] | None:
    """Return frame, unit and pixels of a datagram; None for one that no receiver may use."""
    detector = _detector(config)
    if len(sent.data) != HEADER.size + PAYLOAD_BYTES[detector]:
        return None
    module = _modules(config)[sent.port]
    frame, _, number, *_ = HEADER.unpack_from(sent.data)
    if number not in packet_numbers(detector, config["bit_depth"], config["module_positions"][str(module)]):
        return None
    return frame, (module, number), sent.data[HEADER.size :]


def _detector(config: Any) -> str:
    return str(config["detector_type"])


def _modules(config: Any) -> list[int]:
    return sorted(map(int, config["module_positions"]))


def _units(config: Any) -> dict[Unit, tuple[Any, Any]]:
    """Return y and x in the image of the pixels of each packet that an image has."""
    detector, depth = _detector(config), config["bit_depth"]
    return {
        (module, number): pixel_places(detector, depth, corners, number)
        for module in _modules(config)
        for corners in [config["module_positions"][str(module)]]
        for number in packet_numbers(detector, depth, corners)
    }


@dataclass
class SentImage:
    """One image of the sender, as far as it went out well-formed."""

    frame: int
    first: int  # place of its first and last datagram in what was sent
    last: int
    first_s: float
    last_s: float
    units: dict[Unit, bytes]  # of several packets of one number the first: a port keeps their order


def sent_images(
    config: Any, run: RunEvidence
) -> tuple[dict[int, SentImage], dict[tuple[int, Unit], list[bytes]]]:
    """Return the sender's images, and all pixels that went out under a frame number and a packet number."""
    images: dict[int, SentImage] = {}
    candidates: dict[tuple[int, Unit], list[bytes]] = defaultdict(list)
    for place, sent in enumerate(run.sent):
        if sent.is_foreign or (read := read_datagram(config, sent)) is None:
            continue
        frame, unit, pixels = read
        candidates[frame, unit].append(pixels)
        image = images.setdefault(sent.image, SentImage(frame, place, place, sent.from_s, sent.until_s, {}))
        image.last, image.last_s = place, sent.until_s
        image.units.setdefault(unit, pixels)
    return images, candidates


def judge_images(config: Any, run: RunEvidence, file: Images) -> Iterator[tuple[int, str]]:
    lengths = {len(file.pixels), *map(len, file.columns.values())}
    if len(lengths) > 1:
        yield 4, f"the datasets have different lengths: {sorted(lengths)}"
        return
    units = _units(config)
    images, candidates = sent_images(config, run)
    shown = [_present(units, pixels) for pixels in file.pixels]
    ids = file.columns["image_id"].tolist()
    yield from _truth(units, file, ids, shown, candidates)
    yield from _once(images, ids, shown, candidates)
    yield from _completeness(config, run, units, images, ids, file, shown)


def _present(units: dict[Unit, tuple[Any, Any]], pixels: npt.NDArray[Any]) -> dict[Unit, bytes]:
    """Return the pixels of each unit that has any."""
    found = {unit: pixels[places] for unit, places in units.items()}
    return {unit: part.tobytes() for unit, part in found.items() if part.any()}


def _truth(
    units: dict[Unit, tuple[Any, Any]],
    file: Images,
    ids: list[int],
    shown: list[dict[Unit, bytes]],
    candidates: dict[tuple[int, Unit], list[bytes]],
) -> Iterator[tuple[int, str]]:
    """Whatever is in the file was sent, and what was not is zero, counted, and not called good."""
    is_pixel = np.zeros(file.pixels.shape[1:], bool)
    for places in units.values():
        is_pixel[places] = True
    for row, (image_id, parts) in enumerate(zip(ids, shown, strict=True)):
        where = f"image {row} (id {image_id})"
        if file.pixels[row][~is_pixel].any():
            yield 2, f"{where}: pixels between the modules are not 0"
        n_zero = 0  # units that are 0, and may have been sent as that
        for unit in units:
            known = candidates.get((image_id, unit), [])
            if unit in parts and parts[unit] not in known:
                yield (
                    (2 if known else 3),
                    f"{where}: the pixels of module {unit[0]} packet {unit[1]} were never sent",
                )
            n_zero += unit not in parts and any(not any(pixels) for pixels in known)
        n_missing, status = int(file.columns["missing_packets"][row]), int(file.columns["status"][row])
        n_absent = len(units) - len(parts)
        if not n_absent - n_zero <= n_missing <= n_absent:
            yield 3, f"{where}: {n_absent} packets are missing, it says {n_missing}"
        if status != (n_missing > 0):
            yield 3, f"{where}: status {status} with {n_missing} packets missing"


def _once(
    images: dict[int, SentImage],
    ids: list[int],
    shown: list[dict[Unit, bytes]],
    candidates: dict[tuple[int, Unit], list[bytes]],
) -> Iterator[tuple[int, str]]:
    """Nothing is in the file more often than it was sent; where numbers only rise, each id is there once."""
    used = Counter((image_id, unit) for image_id, parts in zip(ids, shown, strict=True) for unit in parts)
    for (image_id, unit), n in used.items():
        n_sent = len(candidates.get((image_id, unit), []))
        if 0 < n_sent < n:
            yield 2, f"image id {image_id}, packet {unit}: {n} times in the file, sent {n_sent} times"
    frames = [image.frame for image in sorted(images.values(), key=lambda image: image.first)]
    is_rising = all(a < b for a, b in itertools.pairwise(frames))
    for image_id, n in Counter(ids).items():
        if n > 1 and is_rising:
            yield 2, f"image id {image_id} is {n} times in the file"


def _completeness(
    config: Any,
    run: RunEvidence,
    units: dict[Unit, tuple[Any, Any]],
    images: dict[int, SentImage],
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
    absent, short = [], 0
    for image, is_due in _prompt(config, run, images, ids, len(units)):
        row = rows.get(image.frame)
        is_whole = len(image.units) == len(units)
        if row is None:
            if is_due and (is_whole or not drops_incomplete):
                absent.append(image.frame)
        elif drops_incomplete and not is_whole:
            yield 3, f"image id {image.frame} lacks packets and is in the file: they were to be left out"
        elif shown[row] != (expected := {u: p for u, p in image.units.items() if any(p)}):
            differing = [u for u in expected if u in shown[row] and shown[row][u] != expected[u]]
            if differing:
                yield 2, f"image id {image.frame}: packet {differing[0]} is not the first that was sent"
            lacking = len(expected.keys() - shown[row].keys())
            short += lacking
            if lacking > n_drops:
                yield 2, f"image id {image.frame} arrived with {lacking} packets more than are in the file"
    if n_drops == 0 and len(absent) > n_given_up:
        what = "whole" if not drops_incomplete else "wanted"
        yield 2, f"{len(absent)} {what} images are not in the file ({absent[:5]} …), {n_given_up} are counted"
    if short > n_drops:
        yield 3, f"{short} packets are missing in the file, the kernel dropped {n_drops}"


def _prompt(
    config: Any, run: RunEvidence, images: dict[int, SentImage], ids: list[int], n_units: int
) -> Iterator[tuple[SentImage, bool]]:
    """Yield the images of which it is known how they have to be in the file, and whether they have to."""
    frames = Counter(image.frame for image in images.values())
    in_order = sorted(images.values(), key=lambda image: image.first)
    window = config["module_sync_queue_size"]
    end = len(in_order)
    if run.n_images and len(ids) >= run.n_images:  # it ended when it had enough of them
        found = set(ids)
        end = max((i for i, image in enumerate(in_order) if image.frame in found), default=0) - window
    n_begun = np.searchsorted([image.first for image in in_order], [image.last for image in in_order])
    for i, image in enumerate(in_order):
        is_in_run = image.first_s > run.armed_s and (run.stopped_s is None or image.last_s < run.stopped_s)
        is_quick = (
            image.last_s - image.first_s < config["image_timeout_s"] / 2 and n_begun[i] - i < window / 4
        )
        if frames[image.frame] == 1 and is_in_run and is_quick:
            # A stop leaves out what still waits for packets.
            waits_s = 0.0 if len(image.units) == n_units else 2 * config["image_timeout_s"]
            is_over = run.stopped_s is None or image.last_s + waits_s < run.stopped_s
            yield image, i < end and is_over
