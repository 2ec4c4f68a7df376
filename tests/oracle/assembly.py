"""What becomes of packets, in plain Python: images opened, completed, given up, kept for a run or not.

The rules are those of the project's reference page on runs and images. One
datagram is looked at after the other; an image is an object with a set of the
packets it has. Memory is never reused, so nothing old can shine through here.
Which image a packet belongs to is for ``tests.oracle.arms`` to say.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.oracle.arms import Arms, NoRoom, Packet, Port
from tests.oracle.packets import (
    DETECTOR_TYPES,
    HEADER,
    PAYLOAD_BYTES,
    Corners,
    packet_numbers,
    pixel_places,
    place_packet,
)

GOOD, MISSING_PACKETS, ID_MISMATCH, OTHER_FORMAT = 0, 1, 2, 3
HEADER_VERSION = 2


@dataclass(eq=False)
class Image:
    """One image, from its first packet on."""

    frame: int
    arm: int
    image_id: int
    pixels: Any
    newest: int
    packets: set[Packet] = field(default_factory=set)
    mismatch: bool = False
    other_format: bool = False  # a packet of its frame has a number that the config's frames do not have
    abandoned: bool = False  # its number came again, or all that it had was late
    cut: bool = False  # its first packets may have come before the receiver: complete or nobody's
    kept: bool = False
    n_missing: int = 0

    @property
    def status(self) -> int:
        if self.other_format:
            return OTHER_FORMAT
        return ID_MISMATCH if self.mismatch else MISSING_PACKETS if self.n_missing else GOOD


class ReferenceAssembly:
    """Receives what the compiled receiver receives; afterwards both must say the same."""

    def __init__(
        self,
        positions: dict[int, Corners],
        *,
        detector: str,
        bit_depth: int,
        image_shape: tuple[int, int],
        n_slots: int,
        window: int,
        timeout: int,
        drop_incomplete: bool = False,
        id_source: str = "frame",
    ) -> None:
        self.positions = positions
        self.detector, self.bit_depth, self.image_shape = detector, bit_depth, image_shape
        self.n_slots, self.window, self.timeout = n_slots, window, timeout
        self.drop_incomplete, self.id_source = drop_incomplete, id_source
        self.expected = {
            (module, number)
            for module, corners in positions.items()
            for number in packet_numbers(detector, bit_depth, corners)
        }
        self.images: list[Image] = []  # in the order of their first packet
        self.n_published = 0
        self.arms = Arms(self)
        self._image_id = 0
        self.refused: set[int] = set()
        self.early: dict[int, int] = {}  # frames of another format without an image → the next image then
        self.count: Counter[str] = Counter()
        # the run
        self.run_from = 0
        self.wanted = 0
        self.running = False
        self.writer_alive = False
        self.n_consumed = 0
        self.run: Counter[str] = Counter()
        self.run_end: int | None = None
        self.orders: list[int | None] = []  # not looked at yet: images that a run wants; None: its end
        self.ending = False  # looked at, but the sockets are not read yet
        self.writer_gone = False  # that of the last run that was asked for

    # ------------------------------------------------------------ orders

    def ask_for_run(self, n_images: int) -> None:
        self.orders.append(n_images)
        self.writer_gone = False
        self.wanted = n_images  # nobody counts the images of the run before any more

    def ask_for_end(self) -> None:
        self.orders.append(None)

    def end_writer(self) -> None:
        self.writer_gone, self.writer_alive = True, False

    def look(self) -> None:
        """Look at the orders: a run begins at once, it ends when the sockets were read after that.

        Only the last of several runs counts, and none whose writer is gone.
        """
        orders, self.orders = self.orders, []
        if any(n is not None for n in orders):
            self.ending = False
            if not self.writer_gone:
                self._close()
                self._begin()
        self.ending |= orders[-1:] == [None]
        if self.ending and not self.writer_alive:
            self._close()
        self.ending &= self.running

    def end_of_sockets(self) -> None:
        """All that was in the sockets when the loop looked has been received."""
        if self.ending:
            self._close()
        self.ending = False

    def _begin(self) -> None:
        self.running = self.writer_alive = True
        self.run_from = len(self.images)
        self.arms.begin_run(self.images[-self.n_slots :])
        self.run_end = None
        self.run = Counter()
        self.refused = set()

    def _close(self) -> None:
        """End the run: every complete image is kept, and what waits before one with it."""
        if not self.running:
            return
        self.arms.end_doubts()
        last = len(self.images)
        while last > self.n_published and not self._is_over(self.images[last - 1]):
            last -= 1
        while self.running and self.n_published < last:
            self._publish()
        if self.running:
            self.running, self.run_end = False, self.n_published

    # ------------------------------------------------------------ packets

    def receive(self, module: int, sent: bytes, now: int) -> None:
        self.count["received"] += 1
        self.arms.hear(module, now)
        self.count[self._receive(module, sent, now)] += 1

    def _receive(self, module: int, sent: bytes, now: int) -> str:
        """Take one datagram and say what became of it."""
        if len(sent) != HEADER.size + PAYLOAD_BYTES[self.detector]:
            return "malformed"
        frame, _, number, bunch, *_, kind, version = HEADER.unpack_from(sent)
        if kind not in (0, DETECTOR_TYPES[self.detector]) or version not in (0, HEADER_VERSION):
            return "malformed"
        if (module, number) not in self.expected:
            self._convict(module, frame)
            return "malformed"
        image_id = frame
        if self.id_source == "bunch-int":
            image_id = bunch
        elif self.id_source == "bunch":
            as_float = struct.unpack("<d", struct.pack("<Q", bunch))[0]
            if not 0 <= as_float < 9.2e18:
                return "malformed"
            image_id = int(as_float)
        self._image_id = image_id
        port = self.arms.ports[module]
        while True:
            try:
                image = self.arms.find(port, frame, number, now)
                break
            except NoRoom:
                self._give_up_oldest()
        if image == "late":
            return "late"
        if image is None:
            self._refuse(frame)
            return "unplaced"
        if (module, number) in image.packets:
            return "duplicate"
        image.packets.add((module, number))
        image.mismatch |= image.image_id != image_id
        image.newest = now
        corners = self.positions[module]
        place_packet(image.pixels, sent, detector=self.detector, bit_depth=self.bit_depth, corners=corners)
        return "placed"

    def _convict(self, module: int, frame: int) -> None:
        """A frame of a module has another format: its image, if it is known, is not good."""
        image = self._convicted(self.arms.ports[module], frame)
        if image is None:
            self.early[frame] = len(self.images)
            return
        if image.kept and not image.other_format:
            self.run["other_format"] += 1
            self.run["not_good"] += image.status == GOOD
        image.other_format = True

    def _convicted(self, port: Port, frame: int) -> Image | None:
        """Find it: of the port's arm, or one that waits for the port; of a port in none, the newest."""
        oldest = max(len(self.images) - self.n_slots, min(self.run_from, self.n_published), 0)
        known = [image for image in reversed(self.images[oldest:]) if image.frame == frame]
        if port.newest is None or port.fresh:
            own = known
        else:
            own = [image for image in known if image.arm == port.arm_of(frame)]
        waiting = [i for i in known if i in self.open_images() and not i.packets & port.packets]
        return next(iter(own + waiting), None)

    # ------------------------------------------------------------ what the arms ask

    def open_images(self) -> list[Image]:
        return [image for image in self.images[self.n_published :] if not image.abandoned]

    def is_of_run(self, image: Image) -> bool:
        return self.images.index(image) >= self.run_from

    def is_refused(self, frame: int) -> bool:
        return frame in self.refused

    def forget_refused(self) -> None:
        self.refused = set()

    def has_room(self) -> bool:
        return not self._ring_is_full() and len(self.images) - self.n_published < self.window

    def has_kept_any(self) -> bool:
        return self.run["kept"] + self.run["dropped"] > 0

    def is_taking(self) -> bool:
        return self.running

    def open(self, arm: int, frame: int, now: int) -> Image | None:
        if self._ring_is_full():
            return None
        if len(self.images) - self.n_published >= self.window:
            raise NoRoom
        blank = np.zeros(self.image_shape, f"<u{self.bit_depth // 8}")
        self.images.append(Image(frame, arm, self._image_id, blank, now))
        return self.images[-1]

    def withdraw(self, image: Image, packets: set[Packet]) -> None:
        """Take packets out of an image that were not its own."""
        for module, number in packets:
            y, x = pixel_places(self.detector, self.bit_depth, self.positions[module], number)
            image.pixels[y, x] = 0
        image.packets -= packets
        image.abandoned |= not image.packets
        self.count["placed"] -= len(packets)
        self.count["late"] += len(packets)

    def count_restart(self) -> None:
        self.count["restarts"] += 1

    def _ring_is_full(self) -> bool:
        needed = self.n_published
        if self.writer_alive:
            needed = min(needed, max(self.run_from, self.n_consumed))
        return len(self.images) - needed >= self.n_slots

    def _refuse(self, frame: int) -> None:
        if frame in self.refused:
            return
        self.refused.add(frame)
        if self.running:
            self.run["dropped"] += 1
            self.count["dropped_images"] += 1

    # ------------------------------------------------------------ images

    def publish_ready(self, now: int) -> None:
        while self.n_published < len(self.images):
            oldest = self.images[self.n_published]
            is_over = now - oldest.newest >= self.timeout
            if not oldest.abandoned and not self.arms.may_go(oldest, is_over):
                break
            if not self._is_over(oldest) and not is_over:
                break
            self._publish()

    def _give_up_oldest(self) -> None:
        oldest = self.images[self.n_published]
        if not oldest.abandoned:
            assert self.arms.may_go(oldest, is_over=True)
        self._publish()

    def _is_over(self, image: Image) -> bool:
        return image.abandoned or image.packets == self.expected

    def _publish(self) -> None:
        image = self.images[self.n_published]
        self.n_published += 1
        if image.abandoned:
            return
        if self.early.get(image.frame, self.n_published) < self.n_published:
            image.other_format |= self.n_published - 1 - self.early.pop(image.frame) <= self.window
        image.n_missing = len(self.expected) - len(image.packets)
        image.kept = self.running and self.n_published > self.run_from
        self.count["images_published"] += 1
        self.count["incomplete_images"] += image.n_missing > 0
        self.count["missing"] += image.n_missing
        image.cut &= image.n_missing > 0
        image.kept &= not image.cut
        if not image.kept:
            return
        self.run["mismatched"] += image.status == ID_MISMATCH
        self.run["incomplete"] += image.n_missing > 0
        if image.n_missing and self.drop_incomplete:
            image.kept = False
            self.run["dropped"] += 1
            self.count["dropped_images"] += 1
            return
        self.run["missing"] += image.n_missing
        self.run["sparse"] += 2 * len(image.packets) < len(self.expected)
        self.run["not_good"] += image.status != GOOD
        self.run["other_format"] += image.other_format
        self.run["kept"] += 1
        if self.run["kept"] == self.wanted:
            self.running, self.run_end = False, self.n_published
