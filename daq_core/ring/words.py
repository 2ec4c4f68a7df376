"""What stands where in the ring's control words, and in the records of its ports.

Each word has one writing process, named beside it; words of different writers never share
a cache line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NO_END = 2**63 - 1  # value of RUN_END while the run goes on

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

    # control process: the valve of images, see daq_core.pipeline.valve
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
