"""What a frame number means, in plain Python: the twin of ``assembling.claims`` and ``assembling.arms``.

Images are objects, what is in doubt is a set of packets, and everything is remembered
for ever. Only what the rule says is here: no slots, no marks, no threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

RESTART_PAUSE, SAME_PAUSE = 5_000_000, 50_000_000  # ns
Packet = tuple[int, int]  # module, and packet number


class NoRoom(Exception):
    """The window of open images is full: the oldest has to go, then the packet is looked at again."""


class Image(Protocol):
    """What the rule knows of an image."""

    frame: int
    arm: int
    newest: int
    packets: set[Packet]
    abandoned: bool
    cut: bool


class Images(Protocol):
    """What the rule needs of the assembly."""

    window: int
    expected: set[Packet]

    def open_images(self) -> list[Any]: ...
    def is_of_run(self, image: Any) -> bool: ...
    def is_refused(self, frame: int) -> bool: ...
    def has_room(self) -> bool: ...
    def has_kept_any(self) -> bool: ...
    def is_taking(self) -> bool: ...
    def open(self, arm: int, frame: int, now: int) -> Any | None: ...
    def forget_refused(self) -> None: ...
    def withdraw(self, image: Any, packets: set[Packet]) -> None: ...
    def count_restart(self) -> None: ...


@dataclass
class Doubt:
    kind: Literal["again", "ahead"]
    target: int
    frames: list[int]  # of the witnesses
    needed: int
    after_pause: bool
    packets: set[tuple[int, Packet]] = field(default_factory=set)  # with their frame
    n_held: int = 1  # packets that are counted when it is over

    @property
    def n(self) -> int:
        return len(self.packets)


@dataclass
class Port:
    module: int
    numbers: list[int]  # of its packets
    arm: int
    newest: int | None = None  # None: nothing was heard since the receiver began
    fresh: bool = False  # nothing of the present run yet
    in_flight: Packet | None = None  # the last of a frame of which more may come
    doubt: Doubt | None = None
    pause: int = 0
    read: int = 0  # when

    @property
    def packets(self) -> set[Packet]:
        return {(self.module, number) for number in self.numbers}

    def arm_of(self, frame: int) -> int:
        doubt = self.doubt
        is_doubted = doubt is not None and min(doubt.frames) <= frame <= max(doubt.frames)
        return doubt.target if doubt is not None and is_doubted else self.arm


class Arms:
    """The ports of a detector, and which arm each is in."""

    def __init__(self, images: Images) -> None:
        self.images = images
        modules = sorted({module for module, _ in images.expected})
        self.newest_arm = self.confirmed = 1
        self.ports = {
            m: Port(m, sorted(n for module, n in images.expected if module == m), 1) for m in modules
        }
        self.known: set[tuple[int, int]] = set()
        self._asked = 0

    # ------------------------------------------------------------ a packet

    def hear(self, module: int, now: int) -> None:
        """A datagram is read, whatever it is; until then the socket was seen empty."""
        port = self.ports[module]
        port.pause, port.read, self._asked = now - port.read, now, now

    def find(self, port: Port, frame: int, number: int, now: int) -> Any:
        """Return the image of a packet (which may have it already), "late", or None: no free slot."""
        packet = (port.module, number)
        found = self._find_in_doubt(port, frame, packet, now)
        if found == "undecided":
            found = self._find(port, frame, packet, now)
        port.pause = 0
        return found

    def _find(self, port: Port, frame: int, packet: Packet, now: int) -> Any:
        image = self.image_of(port.arm, frame)
        if port.newest is None:
            return self._enter(port, frame, packet, now)
        if image is not None and packet not in image.packets:
            port.newest = max(port.newest, frame)
            return image
        if port.fresh:
            return self._find_in_new_run(port, frame, packet, now, image)
        if frame > port.newest and image is None:
            return self._find_rising(port, frame, packet, now)
        return self._find_again(port, frame, packet, now, image)

    def _find_rising(self, port: Port, frame: int, packet: Packet, now: int) -> Any:
        assert port.newest is not None
        if (port.arm, frame) in self.known:
            port.newest = frame
            return "late"
        found = self._elsewhere(port, frame)
        if found is not None:
            if found.arm < port.arm:  # then the arm that it comes back from is none
                self.cancel(*self._doubting_arm(port.arm)[:1])
            port.arm = found.arm
        elif not self.images.is_refused(frame):
            if frame - port.newest > self.images.window:
                return self._doubt(port, frame, packet, now, "ahead", port.arm)
            found = self._open(port.arm, frame, now)
        port.newest = frame
        return found

    def _find_again(self, port: Port, frame: int, packet: Packet, now: int, image: Any) -> Any:
        assert port.newest is not None
        is_known = image is not None or (port.arm, frame) in self.known
        target = self._arm_to_join(port)
        if port.pause < (RESTART_PAUSE if frame < port.newest else SAME_PAUSE):
            if image is None and self.images.is_refused(frame):
                return None
            is_full = self.image_of(target, frame) is None and not self.images.has_room()
            if not is_known and (frame == port.newest or is_full):
                return self._open(port.arm, frame, now)
            if frame >= port.newest or is_full:
                return image or "late"
        is_amid = port.numbers[0] < packet[1] < port.numbers[-1]
        if image is not None and is_amid and packet == max(image.packets & port.packets):
            return image  # a copy of the last packet so far
        return self._doubt(port, frame, packet, now, "again", target)

    def _find_in_new_run(self, port: Port, frame: int, packet: Packet, now: int, image: Any) -> Any:
        assert port.newest is not None
        if image is not None:
            if port.pause < RESTART_PAUSE:
                return image
            image.abandoned, port.in_flight = True, None
        elif frame == port.newest and port.in_flight is not None and packet > port.in_flight:
            self._cut(self.image_of(self.confirmed, frame))
            return "late"
        if port.pause < RESTART_PAUSE:
            target = self._arm_to_join(port)
            if frame <= port.newest:
                return self._doubt(port, frame, packet, now, "again", target)
            if frame - port.newest > self.images.window:
                return self._doubt(port, frame, packet, now, "ahead", target)
        return self._enter(port, frame, packet, now)

    def _enter(self, port: Port, frame: int, packet: Packet, now: int) -> Any:
        arm = self._arm_to_join(port) if port.fresh else self.confirmed
        found: Any = self.image_of(arm, frame) or self._elsewhere(port, frame)
        if found is not None:
            arm = found.arm
        elif (arm, frame) in self.known:
            found = "late"
        else:
            found = self._open(arm, frame, now)
        is_first = packet[1] == port.numbers[0]
        if port.newest is None and not is_first and not self.images.has_kept_any() and found != "late":
            self._cut(found)
        port.arm, port.newest, port.fresh = arm, frame, False
        return found

    # ------------------------------------------------------------ doubts

    def _doubt(
        self,
        port: Port,
        frame: int,
        packet: Packet,
        now: int,
        kind: Literal["again", "ahead"],
        target: int,
    ) -> Any:
        image = self.image_of(target, frame)
        if image is None:
            image = self._open(target, frame, now)
            if image is None:
                return None
        elif packet in image.packets:
            return image
        n, is_after_pause = len(port.numbers), port.pause >= RESTART_PAUSE
        if kind == "ahead":
            needed = 2
        elif port.fresh:
            needed = max(n, 2)
        elif frame == port.newest:
            needed = min(n, 2)
        else:
            is_first = packet[1] == port.numbers[0]
            is_begin = port.pause >= SAME_PAUSE or is_first or target <= self.confirmed
            needed = 2 if is_after_pause and is_begin else n + 1
        port.doubt = Doubt(kind, target, [frame], needed, is_after_pause, {(frame, packet)})
        self.newest_arm = max(self.newest_arm, target)
        if port.doubt.n >= needed:
            self.confirm(port)
        return image

    def _find_in_doubt(self, port: Port, frame: int, packet: Packet, now: int) -> Any:
        doubt = port.doubt
        if doubt is None:
            return "undecided"
        image = self.image_of(doubt.target, frame)
        assert port.newest is not None
        is_asked = doubt.kind == "again" or frame <= port.newest
        own = self.image_of(port.arm, frame) if is_asked else None
        is_new = image is None or packet not in image.packets
        is_wanted = own is not None and packet not in own.packets
        if doubt.after_pause and frame >= min(doubt.frames):
            is_wanted = False
        if self._is_refuted(port, doubt, frame, packet, own, is_wanted, is_new):
            self.cancel(port)
            return "undecided"
        if is_wanted:
            return own
        if not is_new:
            return image
        beyond = frame - max(doubt.frames)
        if doubt.kind == "again" and not doubt.after_pause and beyond > 0 and beyond > port.newest - frame:
            if own is not None or (port.arm, frame) in self.known:
                return "late"
            return self._open(port.arm, frame, now)
        if image is None:
            if (doubt.target, frame) in self.known:
                return "late"
            image = self._open(doubt.target, frame, now)
            if image is None:
                return None
        doubt.frames.append(frame)
        doubt.packets.add((frame, packet))
        doubt.n_held += 1
        if doubt.n >= doubt.needed:
            self.confirm(port)
        return image

    def _is_refuted(
        self,
        port: Port,
        doubt: Doubt,
        frame: int,
        packet: Packet,
        own: Any,
        is_wanted: bool,
        is_new: bool,
    ) -> bool:
        assert port.newest is not None
        if doubt.kind == "ahead":
            if frame <= port.newest and own is not None:
                return False
            return frame < min(doubt.frames) or frame - max(doubt.frames) > self.images.window
        if frame == port.newest:
            if is_wanted:
                return True
            if port.fresh and port.in_flight is not None and packet > port.in_flight:
                return True
        is_before = frame < min(doubt.frames) and not doubt.after_pause
        return frame > port.newest or is_before or (not is_new and port.pause >= SAME_PAUSE)

    def confirm(self, port: Port) -> None:
        doubt, port.doubt = port.doubt, None
        assert doubt is not None
        if doubt.kind == "again":
            if not port.fresh and doubt.target > self.confirmed:
                self.images.count_restart()
            self.images.forget_refused()
        self.confirmed = max(self.confirmed, doubt.target)
        port.arm = doubt.target
        port.newest, port.fresh = max(doubt.frames), False

    def cancel(self, *ports: Port) -> None:
        """End doubts; an image that nobody had seen is settled then for all ports that brought some of it."""
        moot = []
        for port in ports:
            for image in self.images.open_images():
                if not self.is_doubted(image, port):
                    continue
                if self._is_first_of_its_number(image, port):
                    moot += self._give_back(image, port)
                else:
                    self.images.withdraw(image, image.packets & port.packets)
                    if not image.packets:
                        self.known.discard((image.arm, image.frame))
            port.doubt = None
        if moot:
            self.cancel(*moot)

    def _give_back(self, image: Any, port: Port) -> list[Port]:
        """Give an image to a port's own arm, and all of the other arm when nobody is sure of that."""
        arm, given, moot = image.arm, [image], []
        if arm > self.confirmed:
            others = [one for one in self.images.open_images() if one.arm == arm and one is not image]
            given += [one for one in others if (port.arm, one.frame) not in self.known]
            for other in self.ports.values():
                other.arm = port.arm if other.arm == arm else other.arm
        for one in given:
            moot += [other for other in self._doubting(one) if other is not port]
            self.known.discard((arm, one.frame))
            one.arm = port.arm
            self.known.add((one.arm, one.frame))
        return moot

    def _doubting_arm(self, arm: int) -> list[Port]:
        doubting = [port for port in self.ports.values() if port.doubt is not None]
        return [p for p in doubting if p.doubt and p.doubt.kind == "again" and p.doubt.target == arm]

    @property
    def n_held(self) -> int:
        return sum(port.doubt.n_held for port in self.ports.values() if port.doubt is not None)

    def is_doubted(self, image: Any, port: Port) -> bool:
        doubt = port.doubt
        return (
            doubt is not None
            and image.arm == doubt.target
            and min(doubt.frames) <= image.frame <= max(doubt.frames)
            and bool(image.packets & port.packets)
        )

    def _is_first_of_its_number(self, image: Any, port: Port) -> bool:
        assert port.doubt is not None
        is_known = (port.arm, image.frame) in self.known
        return port.doubt.kind == "again" and not port.fresh and not is_known

    def may_go(self, image: Any, is_over: bool) -> bool:
        """Tell whether an image that is the next to be published may be; when it is over, decide."""
        is_whole = image.packets == self.images.expected
        is_kept = True
        for port in self._doubting(image):
            if not self.is_doubted(image, port):
                continue
            assert port.doubt is not None
            if is_whole and len(self.ports) > 1 and port.doubt.after_pause:
                self.confirm(port)
            elif is_over:
                self.decide(port)
            else:
                is_kept &= self._is_first_of_its_number(image, port)
        if is_whole and is_kept:
            self.known |= {(port.arm, image.frame) for port in self._doubting(image)}
            return True
        return not self._doubting(image)

    def _doubting(self, image: Any) -> list[Port]:
        return [port for port in self.ports.values() if self.is_doubted(image, port)]

    def decide(self, port: Port) -> None:
        assert port.doubt is not None
        is_believed = port.doubt.after_pause and not self.images.is_taking()
        is_frame = 1 < len(port.numbers) <= port.doubt.n
        if port.doubt.kind == "again" and (is_believed or is_frame):
            self.confirm(port)
        else:
            self.cancel(port)

    def end_doubts(self) -> None:
        for port in self.ports.values():
            if port.doubt is not None:
                self.decide(port)

    # ------------------------------------------------------------ runs

    def begin_run(self, images: Iterable[Any]) -> None:
        """Begin a run; `images`: all that there were."""
        by_number = {(image.arm, image.frame): image for image in images}
        for port in self.ports.values():
            if port.doubt is not None and not port.doubt.after_pause:
                self.cancel(port)
            if port.doubt is not None:
                port.arm, port.newest = port.doubt.target, max(port.doubt.frames)
                port.doubt = None
            port.in_flight, port.fresh = None, True
            image = by_number.get((port.arm, port.newest)) if port.newest is not None else None
            if image is not None and 0 < len(part := image.packets & port.packets) < len(port.numbers):
                port.in_flight = max(part)
        self.newest_arm += 1
        self.confirmed = self.newest_arm

    # ------------------------------------------------------------ images of an arm

    def image_of(self, arm: int, frame: int) -> Any | None:
        for image in reversed(self.images.open_images()):
            if (image.arm, image.frame) == (arm, frame):
                return image
        return None

    def _open(self, arm: int, frame: int, now: int) -> Any | None:
        image = self.images.open(arm, frame, now)
        if image is not None:
            self.known.add((arm, frame))
        return image

    def _elsewhere(self, port: Port, frame: int) -> Any | None:
        is_alone = all(other.arm < port.arm for other in self.ports.values() if other is not port)
        may_return = is_alone or port.arm > self.confirmed
        for image in self.images.open_images():
            is_other = image.arm > port.arm or (image.arm < port.arm and may_return)
            is_free = not image.packets & port.packets
            if image.frame == frame and is_other and is_free and self.images.is_of_run(image):
                return image
        return None

    def _arm_to_join(self, port: Port) -> int:
        waiting = [
            image.arm
            for image in self.images.open_images()
            if image.arm > port.arm
            and self._asked - image.newest < SAME_PAUSE
            and not image.packets & port.packets
        ]
        if waiting:
            return min(waiting)
        return self.confirmed if port.fresh else self.newest_arm + 1

    def _cut(self, image: Any) -> None:
        if image is not None:
            image.cut = True
