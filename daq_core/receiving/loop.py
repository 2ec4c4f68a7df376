"""The compiled loop of a receive thread: fetch, find the images, copy, publish, rest.

How the loop waits matters more than the language: it drains every port without
blocking, and when all came back short it sleeps ``REST_NS``; blocking in
recvmmsg would return two to five packets a call. After ``IDLE_NS`` without a
packet it waits in poll(2) instead.

A run begins at the top of a turn, and ends at the bottom of one, when the sockets
were read (``daq_core.assembling.draining``). For some turns more it is looked out for what its
last images turn out to be (``daq_core.assembling.verdicts``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from daq_core.assembling.arms import begin_reading, note_batch
from daq_core.assembling.assembly import settle
from daq_core.assembling.draining import begin_draining, count_read, everybody_has_drained
from daq_core.assembling.gate import begin_turn, enter, leave, rest_until
from daq_core.assembling.orders import end_run, is_ordered, take_orders
from daq_core.assembling.publication import give_up_oldest, publish_ready
from daq_core.assembling.signatures import (
    ASSEMBLY_TYPE,
    BATCH_TYPE,
    ERASE,
    LAYOUT_TYPE,
    PUT,
    TAKE,
    Clock,
    Port,
)
from daq_core.assembling.verdicts import is_on_trial, judge, look_for_next_frame
from daq_core.kernels.compiling import kernel, kernel_of, now_ns, poll, recvmmsg, sleep_ns
from daq_core.linux.sockets import MSG_DONTWAIT, MSG_TRUNC
from daq_core.receiving.senders import SENDERS_TYPE, drop_foreign
from daq_core.ring.words import SocketState, Word

FLAGS = MSG_DONTWAIT | MSG_TRUNC
REST_NS = 300_000
IDLE_NS = 20_000_000
POLL_MS = 20  # how long poll(2) waits for a packet

_int64 = types.int64[::1]


class Sockets(NamedTuple):
    """UDP sockets of one thread.

    descriptors : (sockets,) int32   non-blocking
    ports       : (sockets,) int64   which row of the layout each is
    waiting     : (sockets,) uint64  struct pollfd of the same sockets
    rooms       : (sockets,) int64   bytes that each holds at most, as the kernel counts them
    unread      : (sockets,) int64   scratch
    """

    descriptors: Any
    ports: Any
    waiting: Any
    rooms: Any
    unread: Any


SOCKETS_TYPE = types.NamedTuple((types.int32[::1], _int64, types.uint64[::1], _int64, _int64), Sockets)


@kernel
def place(
    take: Any,
    put: Any,
    erase: Any,
    batch: Any,
    n: int,
    port: Any,
    clock: Any,
    assembly: Any,
    crew: Any,
) -> None:
    """Put the pixels of n received datagrams into their images; parameters as in :func:`receive`."""
    ring = assembly.ring
    done = 0
    while done < n:
        enter(crew)
        end = take(batch, done, n, port, clock, assembly)
        leave(crew)
        put(batch, done, end, port, ring)
        settle(ring, batch.taken, done, end)
        done = end
        if done < n:
            enter(crew)
            give_up_oldest(assembly, port.layout, erase)
            leave(crew)


@kernel_of(
    types.void(
        types.FunctionType(TAKE),
        types.FunctionType(PUT),
        types.FunctionType(ERASE),
        SOCKETS_TYPE,
        BATCH_TYPE,
        LAYOUT_TYPE,
        ASSEMBLY_TYPE,
        SENDERS_TYPE,
        _int64,
        _int64,
        types.int64,
    )
)
def receive(
    take: Any,
    put: Any,
    erase: Any,
    sockets: Any,
    batch: Any,
    layout: Any,
    assembly: Any,
    senders: Any,
    timespec: Any,
    crew: Any,
    me: int,
) -> None:
    """Receive until told to leave, as one of the crew.

    Parameters
    ----------
    take, put, erase : the detector's kernels, of the signatures TAKE, PUT and ERASE
    sockets  : Sockets of this thread
    batch, assembly : as in ``daq_core.assembling.signatures``
    layout   : (ports,) LAYOUT
    senders  : Senders
    timespec : (2,) int64, scratch
    crew, me : what the threads share, of ``gate.new_crew``, and which of them this is
    """
    ring, local, messages = assembly.ring, assembly.local, batch.messages
    size = messages.shape[0]
    last_packet = now_ns(1, timespec)
    while ring.words[Word.LEAVE] == 0:
        now = begin_turn(crew, me, ring.words, timespec)
        clock = Clock(now, now_ns(0, timespec))
        ending = 0
        if is_ordered(ring):
            enter(crew)
            ending = take_orders(assembly, layout, erase)
            leave(crew)
            if ending != 0:
                begin_draining(crew, me, ending, sockets.rooms, sockets.unread)
        busy = False
        on_trial = is_on_trial(ring)
        for k in range(sockets.descriptors.shape[0]):
            n = recvmmsg(sockets.descriptors[k], messages.ctypes.data, np.uint32(size), np.int32(FLAGS), 0)
            port = Port(layout, sockets.ports[k])
            is_read = n < size
            if ending != 0:
                count_read(messages, n, sockets.unread, k)
            begin_reading(ring.arms, port.number, now)
            note_batch(ring.arms, port.number, n, size, now)
            if n <= 0:
                if on_trial:
                    look_for_next_frame(ring, local, batch.taken, 0, port.number, is_read, now)
                continue
            last_packet = now
            busy |= not is_read
            if senders.names.shape[0] > 0:
                enter(crew)
                n = drop_foreign(senders, batch, n, ring)
                leave(crew)
            place(take, put, erase, batch, n, port, clock, assembly, crew)
            ring.sockets[port.number, SocketState.RECEIVED] += n
            if on_trial:
                look_for_next_frame(ring, local, batch.taken, n, port.number, is_read, now)
        enter(crew)
        publish_ready(assembly, layout, erase, now)
        if ending != 0 and everybody_has_drained(crew, me, ending, sockets.unread):
            end_run(assembly, layout, erase, ending)
        judge(ring)
        on_trial = is_on_trial(ring)
        leave(crew)
        if busy:
            continue
        if now - last_packet < IDLE_NS or ring.words[Word.PUBLISHED] < ring.words[Word.OPENED] or on_trial:
            rest_until(crew, me, now + REST_NS)
            sleep_ns(REST_NS, timespec)
        else:
            rest_until(crew, me, now + POLL_MS * 1_000_000)
            poll(sockets.waiting.ctypes.data, np.uint64(sockets.waiting.shape[0]), np.int32(POLL_MS))
