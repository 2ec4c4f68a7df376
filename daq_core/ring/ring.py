"""The image ring in shared memory: what receiver, writer and control tell each other.

One anonymous file (memfd) holds, page by page, the control words, the ports'
and modules' counters, a record and a packet bitmap for each slot, and the
slots' pixels. Images get a sequence number when their first packet arrives and
live in slot ``sequence % n_slots``; three cursors say all there is to say::

    consumed  <=  published  <=  opened          opened - consumed <= n_slots
    (writer)      (receiver)     (receiver)

Each field has one writing process, named beside it. When the ring is full, the newest
image is dropped and counted; nothing already in the ring suffers.

Only numpy here: the writer process maps the ring without loading a compiler.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

NO_END = 2**63 - 1  # value of RUN_END while the run goes on

# Slot states; SKIPPED is never written to a file, HELD is open, but a port is in doubt about it.
FREE, OPEN, COMPLETE, INCOMPLETE, SKIPPED, HELD = range(6)

# Slots' unwanted: not to be stored, as the detector says; or unless complete, since it was in flight.
UNWANTED, CUT = 1, 2

# Status of an image in the file.
GOOD, MISSING_PACKETS, ID_MISMATCH, OTHER_FORMAT = range(4)

MAX_WRITERS = 64
WRITER_WORDS = 8  # a cache line


class _Words(NamedTuple):
    """Index of each control word; words of different writers never share a cache line."""

    # control process
    EPOCH: int = 0  # odd: a run is armed; even: none
    N_IMAGES: int = 1  # images the armed run wants; 0: until stopped
    WRITER_DONE: int = 2  # the last epoch whose writer has ended, in order or not
    N_WRITERS: int = 4  # of the armed run; 0 is one
    START_ID: int = (
        5  # the armed run keeps no image with a lower id; this and the next are 64 bits as they are
    )
    BEHIND_ID: int = 6  # nor with this or a higher one, which ends it; 0: any

    # receiver
    PUBLISHED: int = 8  # sequence number after the newest published image; futex word
    OPENED: int = 9  # sequence number after the newest opened image
    ACKNOWLEDGED: int = 10  # the last epoch the receiver has taken up
    RUN_FIRST: int = 11  # first sequence number of the run
    RUN_END: int = 12  # sequence number after the run's last image, NO_END while it goes on
    RUN_KEPT: int = 13  # images of the run that were published to be written
    RUN_DROPPED: int = 14  # images of the run lost: ring full, or incomplete and unwanted
    RUN_INCOMPLETE: int = 15  # images of the run with missing packets
    RUN_MISSING: int = 16  # packets missing in kept images of the run
    RUN_MISMATCHED: int = 17  # images of the run whose modules disagreed on the id
    RUN_HIGH_WATER: int = 18  # most slots in use during the run
    HEARTBEAT: int = 19  # monotonic nanoseconds of the receive loop's last turn
    LAST_IMAGE_ID: int = 20  # of the newest published image, its 64 bits as they are
    RUN_SPARSE: int = 21  # kept images of the run that hold less than half of their packets
    RUN_OTHER_FORMAT: int = 22  # kept images of the run whose format is not the config's
    RUN_NOT_GOOD: int = 23  # kept images of the run whose status is not GOOD, each once
    RECEIVED: int = 24
    PLACED: int = 25
    DUPLICATE: int = 26
    LATE: int = 27
    FOREIGN: int = 28  # of senders that are not allowed; 0 as long as all are
    MALFORMED: int = 29
    UNPLACED: int = 30  # well-formed, but their image found no free slot
    IMAGES_PUBLISHED: int = 31
    INCOMPLETE_IMAGES: int = 32
    DROPPED_IMAGES: int = 33
    MISSING: int = 34
    RESTARTS: int = 35  # times the detector was armed again within a run, counted once for all ports
    UNWANTED: int = 36  # images dropped while no run wanted them: no loss
    RUN_EPOCH: int = 37  # epoch that RUN_FIRST, RUN_END and the RUN_ counts belong to
    RUN_JUDGED: int = (
        38  # the last epoch of whose images nothing more will turn out (``daq_core.assembling.verdicts``)
    )
    N_VERDICTS: int = 39  # entries ever made at VERDICTS
    RUN_FORGOTTEN: int = 40  # proofs of another format that could not be kept until their image came
    LEAVE: int = 41  # 1: nobody is there any more to receive for; the receive threads end

    # receiver's housekeeping thread
    KERNEL_DROPS: int = 48
    SOCKET_BUFFER: int = 49  # bytes granted per port

    # writer; those of writer w of several lie w × WRITER_WORDS further on, see words_of
    CONSUMED: int = 56  # sequence number after the newest image the writer is done with
    COMPLETED: int = 57  # images of the run that a reader of the file can see
    LATENCY_NS: int = 58  # newest image: first packet to flushed
    DISK_FREE: int = 59  # bytes free where the run is written, about once a second; 0: it has not looked yet
    GIVEN_UP: int = 60  # images of the run that a stop did not leave the time to write
    INVALID_PIXELS: int = 61  # of the run: in a gain stage that does not exist

    # control process: the valve of images, see daq_core.control.valve
    VALVE: int = 56 + MAX_WRITERS * WRITER_WORDS  # odd: open
    VALVE_IMAGES: int = VALVE + 1  # that it lets through while it is open this time; 0: until it is closed
    BY_VALVE: int = VALVE + 2  # 1: the armed run keeps what the valve lets through, nothing else

    # receiver
    VALVE_SEEN: int = VALVE + 8  # the last VALVE it has taken up
    VALVE_FIRST: int = VALVE + 9  # first sequence number that the valve lets through, this time
    VALVE_END: int = VALVE + 10  # sequence number after the last, NO_END while it is open
    PASSED: int = VALVE + 11  # images that it let through, this time
    PASSED_ID: int = VALVE + 12  # of the newest of them, its 64 bits as they are
    PASSED_NS: int = VALVE + 13  # real time of its first packet

    COUNT: int = VALVE + 16
    VERDICTS: int = COUNT  # behind the words: sequence numbers, see ``daq_core.assembling.verdicts``


Word = _Words()  # an instance, because kernels take named tuples for constants but no classes

SLOT = np.dtype(
    [
        ("frame", np.uint64),  # the detector's frame number: what packets are matched by
        ("image_id", np.uint64),  # what the file shows: frame number or bunch id
        ("sequence", np.int64),
        ("first_ns", np.int64),  # real time of the first packet
        ("newest_ns", np.int64),  # monotonic time of the newest packet
        ("n_received", np.int64),  # units (packets, or rows where a detector counts rows) that are marked
        ("n_missing", np.int32),  # packets; true once published
        ("arm", np.int32),  # that the ports were in which it is of (``daq_core.assembling.arms``)
        ("state", np.int32),
        ("status", np.int16),
        ("unwanted", np.int16),  # UNWANTED, CUT or 0
    ],
    align=True,
)


class _SocketColumns(NamedTuple):
    """Columns of Ring.sockets, one row and two cache lines for each UDP port."""

    # receiver's housekeeping thread
    DROPS: int = 0  # datagrams that the kernel dropped, since the service was started
    USED: int = 1  # memory of the datagrams that wait, as the kernel counts it
    PEAK: int = 2  # the most that was seen in this run
    SIZE: int = 3  # what it may be at most

    # receiver, the thread that has the port
    RECEIVED: int = 4  # datagrams since the ring was made, without those of foreign senders
    ODD_LENGTHS: int = 5  # of them: those whose length no packet of the detector has
    ODD_LENGTH: int = 6  # bytes of the last of these
    ODD_HEADERS: int = 8  # datagrams since the last run began whose header is another detector's
    ODD_HEADER: int = 9  # the bits of the last of these that LAYOUT's header_mask has
    ODD_NUMBERS: int = 10  # those with a packet or row that the config's frames do not have
    ODD_NUMBER: int = 11  # the highest of these numbers
    SETTLED: int = 12  # the last epoch after whose images this port has shown others, or nothing in time

    COUNT: int = 16


SocketState = _SocketColumns()


class _ArmWords(NamedTuple):
    """Columns of Ring.arms, one row for each UDP port, one for all streams; written by the receiver.

    Frame numbers are there with their 64 bits as they are, times in monotonic nanoseconds.
    """

    ARM: int = 0  # which time the detector is armed, as far as the port has shown it
    NEWEST: int = 1  # frame number of this arm: the highest that is not in doubt
    FIRST: int = 2  # frame number with which it entered the arm, or came to where it is from far
    IS_HEARD: int = 3  # 1: something came since the receiver began
    IS_FRESH: int = 4  # 1: nothing of the present run yet
    IN_FLIGHT: int = 5  # last unit of the frame that was in flight when the run began; large: none was
    BEHIND: int = 6  # in this run: the most images that it was behind others who did not wait
    ENTERED_NS: int = 7  # when it entered the arm

    DOUBT: int = 8  # NO_DOUBT, AGAIN or AHEAD, of ``daq_core.assembling.arms``
    TARGET: int = 9  # the arm that it is in if the doubt is confirmed
    WITNESS: int = 10  # first frame number in doubt
    LATEST: int = 11  # highest frame number in doubt
    EVIDENCE: int = 12  # units that came in doubt
    NEEDED: int = 13  # and how many confirm it
    AFTER_PAUSE: int = 14  # 1: the port was silent before
    IS_MOOT: int = 15  # 1: the doubt is to be ended

    SINCE_NS: int = 16  # what was read last came after this
    PAUSE_NS: int = 17  # the port was silent at least so long before; 0 after the first packet
    WAS_READ: int = 18  # 1: something was read in the turn before
    HEARD_NS: int = 19  # all that was read had come by then
    EMPTY_NS: int = 20  # the socket held nothing more after this

    N_HELD: int = 22  # packets in doubt, which are counted when it is over
    LATE_FRAMES: int = 21  # its images in a row that were gone when it brought them

    MODULE: int = 24  # place in module_packets; this and the rest never change
    FIRST_UNIT: int = 25
    N_UNITS: int = 26  # of this port in an image
    PACKET_UNITS: int = 27  # of a full packet
    TURNS: int = 28  # 2: the port has each other number
    IS_STREAM: int = 29  # 1: whole images come as messages
    COUNT: int = 32


Arm = _ArmWords()


class Ring(NamedTuple):
    """Views of one ring, as kernels take them; all memory is shared.

    words          (Word.COUNT + 2 n_slots,) int64, see Word; the last 2 n_slots are the sequence numbers of
                                            images that turned out to have another format after they
                                            were published, in turn. An array of their own would be
                                            seven numbers more in every call of a kernel.
    module_packets (n_modules,) int64       packets of each module, this run
    slots          (n_slots,) SLOT
    marks          (n_slots, n_marks) uint64  one bit for each unit of an image that arrived
    placed         (n_slots,) int64         units whose pixels are in place; less than n_received
                                            while a receive thread still copies
    pixels         (n_slots, image_bytes) uint8
    sockets        (n_ports, SocketState.COUNT) int64, what is known of each UDP port
    """

    words: Any
    module_packets: Any
    slots: Any
    marks: Any
    placed: Any
    pixels: Any
    sockets: Any
    arms: Any


@dataclass(frozen=True)
class RingShape:
    """Sizes of a ring, enough to map it in another process."""

    n_slots: int
    n_modules: int
    n_units: int  # of one image: bits in its bitmap
    room_bytes: int  # of one image, with what is kept behind its pixels
    n_ports: int = 0  # last in memory: 0 is right for all who do not look at the sockets

    @property
    def n_marks(self) -> int:
        return -(-self.n_units // 64)

    @property
    def slot_bytes(self) -> int:
        """Distance of two slots: whole pages, so that a slot can be written to disk directly."""
        return _pages(self.room_bytes)

    @property
    def _n_words(self) -> int:
        return Word.COUNT + 2 * self.n_slots

    def _offsets(self) -> tuple[int, ...]:
        modules = _pages(self._n_words * 8)
        slots = modules + _pages(self.n_modules * 8)
        marks = slots + _pages(self.n_slots * SLOT.itemsize)
        placed = marks + _pages(self.n_slots * self.n_marks * 8)
        pixels = placed + _pages(self.n_slots * 8)
        sockets = pixels + self.n_slots * self.slot_bytes
        arms = sockets + _pages(self.n_ports * SocketState.COUNT * 8)
        end = arms + _pages(max(1, self.n_ports) * Arm.COUNT * 8)
        return modules, slots, marks, placed, pixels, sockets, arms, end

    @property
    def total_bytes(self) -> int:
        return self._offsets()[-1]

    def create(self) -> int:
        """Return the descriptor of a new, zeroed memfd of this size, for this user alone."""
        descriptor = os.memfd_create("std-daq-ring", os.MFD_CLOEXEC)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, self.total_bytes)
        return descriptor

    def attach(self, descriptor: int) -> Ring:
        """Map the ring; the descriptor may be closed afterwards. ``ring.prefault`` fetches its pages."""
        modules, slots, marks, placed, pixels, sockets, arms, _ = self._offsets()
        raw: npt.NDArray[np.uint8] = np.asarray(_Mapping(descriptor, self.total_bytes))
        return Ring(
            words=raw[: self._n_words * 8].view(np.int64),
            module_packets=raw[modules : modules + self.n_modules * 8].view(np.int64),
            slots=raw[slots : slots + self.n_slots * SLOT.itemsize].view(SLOT).view(np.recarray),
            marks=raw[marks : marks + self.n_slots * self.n_marks * 8]
            .view(np.uint64)
            .reshape(self.n_slots, self.n_marks),
            placed=raw[placed : placed + self.n_slots * 8].view(np.int64),
            pixels=raw[pixels:sockets].reshape(self.n_slots, self.slot_bytes),
            sockets=raw[sockets : sockets + self.n_ports * SocketState.COUNT * 8]
            .view(np.int64)
            .reshape(self.n_ports, SocketState.COUNT),
            arms=raw[arms : arms + max(1, self.n_ports) * Arm.COUNT * 8]
            .view(np.int64)
            .reshape(max(1, self.n_ports), Arm.COUNT),
        )


def choose_n_slots(
    room_bytes: int, ram_buffer_gb: float, free_bytes: int, *, n_modules: int, n_units: int
) -> int:
    """Return how many images the ring holds.

    ``ram_buffer_gb`` GiB when given, else 1 GiB or a quarter of the free memory,
    whichever is less; at least 8 images, at most a million.
    """
    one = RingShape(1, n_modules, n_units, room_bytes)
    slot_cost = one.slot_bytes + one.n_marks * 8 + 24 + SLOT.itemsize
    wanted = int(ram_buffer_gb * 2**30) if ram_buffer_gb > 0 else min(2**30, free_bytes // 4)
    return max(8, min(1_000_000, wanted // slot_cost))


def carry_over(words: npt.NDArray[np.int64], former: npt.NDArray[np.int64]) -> None:
    """Let a new ring begin with what was counted in the one before: what people see never falls.

    The process that makes the ring does this before another one has it; then the words are the receiver's.
    """
    words[Word.RECEIVED : Word.RUN_EPOCH] = former[Word.RECEIVED : Word.RUN_EPOCH]
    words[Word.KERNEL_DROPS] = former[Word.KERNEL_DROPS]


def words_of(words: npt.NDArray[np.int64], index: int) -> npt.NDArray[np.int64]:
    """Return a writer's word of all writers of the run: (n_writers,) int64, e.g. to be summed."""
    n_writers = max(1, int(words[Word.N_WRITERS]))
    return words[index : index + n_writers * WRITER_WORDS : WRITER_WORDS]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FIXED, _MAP_FAILED = 0x10, 2**64 - 1

HUGE_BYTES = 2 * 2**20
"""A huge page. One entry maps it into a process, where its small pages need 512."""


class _Mapping:
    """A file mapped at a multiple of a huge page, until no array looks at it any more.

    Only so can huge pages be mapped as such (``daq_core.ring.prefault`` makes them): a writer has
    the slots of its run for nothing then, else mapping them costs half as much as compressing.
    """

    def __init__(self, descriptor: int, n_bytes: int) -> None:
        self._length = n_bytes + HUGE_BYTES
        nowhere = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._room = self._map(None, self._length, 0, nowhere, -1)
        start = -(-self._room // HUGE_BYTES) * HUGE_BYTES
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._map(start, n_bytes, protection, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
        self.__array_interface__ = {
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (start, False),
            "version": 3,
        }

    def _map(self, at: int | None, length: int, protection: int, flags: int, descriptor: int) -> int:
        address = int(_libc.mmap(at, length, protection, flags, descriptor, 0))
        if address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, f"the image ring cannot be mapped: {os.strerror(error)}")
        return address

    def __del__(self) -> None:
        if hasattr(self, "_room"):
            _libc.munmap(self._room, self._length)


SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine, 202)
"""Number of the system call futex(2), which ``compiled.wake`` needs too."""
_FUTEX_WAIT = 0


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def wait_for_change(words: npt.NDArray[np.int64], index: int, seen: int, timeout_s: float) -> None:
    """Return when a word differs from `seen`, or after the timeout; needs no lock and no polling."""
    timeout = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    address = words.ctypes.data + index * 8  # little-endian: the low half is first
    result = _libc.syscall(
        SYS_FUTEX,
        ctypes.c_void_p(address),
        _FUTEX_WAIT,
        ctypes.c_uint32(seen & 0xFFFFFFFF),
        ctypes.byref(timeout),
        None,
        0,
    )
    if result < 0 and (error := ctypes.get_errno()) not in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR):
        raise OSError(error, os.strerror(error))


_MADV_POPULATE_READ = 22  # since Linux 5.14; an older one refuses, and pages are mapped one by one


def map_pages(pixels: npt.NDArray[Any]) -> None:
    """Map the pages of part of a ring into this process at once, before the kernel reads from them.

    A pwrite(2) from pages that are not mapped yet copies in small pieces; without
    this the writer of a run costs a third more (measured on ext4).
    """
    _libc.madvise(
        ctypes.c_void_p(pixels.ctypes.data), ctypes.c_size_t(pixels.nbytes), ctypes.c_int(_MADV_POPULATE_READ)
    )


def _pages(n_bytes: int) -> int:
    return -(-n_bytes // 4096) * 4096
