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

from typing import Any

import numpy as np
from numba import types

from daq_core.assembling.arms import begin_reading, note_batch
from daq_core.assembling.assembly import ERASE, LAYOUT_TYPE, PUT, RING_TYPE, TAKE, settle
from daq_core.assembling.draining import begin_draining, count_read, everybody_has_drained
from daq_core.assembling.gate import begin_turn, enter, leave, rest_until
from daq_core.assembling.publication import end_run, give_up_oldest, is_ordered, publish_ready, take_orders
from daq_core.assembling.verdicts import is_on_trial, judge, look_for_next_frame
from daq_core.kernels.compiling import kernel, kernel_of, now_ns, poll, recvmmsg, sleep_ns
from daq_core.linux.sockets import MSG_DONTWAIT, MSG_TRUNC
from daq_core.receiving.senders import drop_foreign
from daq_core.ring.ring import SocketState, Word

FLAGS = MSG_DONTWAIT | MSG_TRUNC
REST_NS = 300_000
IDLE_NS = 20_000_000
POLL_MS = 20  # how long poll(2) waits for a packet

_int64 = types.int64[::1]
_taken = types.int64[:, ::1]


@kernel
def place(
    take: Any,
    put: Any,
    erase: Any,
    datagrams: Any,
    stride: int,
    messages: Any,
    n: int,
    layout: Any,
    port: int,
    now: int,
    real: int,
    ring: Any,
    local: Any,
    taken: Any,
    crew: Any,
) -> None:
    """Put the pixels of n received datagrams into their images; parameters as in :func:`receive`."""
    done = 0
    while done < n:
        enter(crew)
        end = take(datagrams, stride, messages, done, n, layout, port, now, real, ring, local, taken)
        leave(crew)
        put(datagrams, stride, messages, done, end, layout, port, ring, taken)
        settle(ring, taken, done, end)
        done = end
        if done < n:
            enter(crew)
            give_up_oldest(ring, local, layout, erase)
            leave(crew)


@kernel_of(
    types.void(
        types.FunctionType(TAKE),
        types.FunctionType(PUT),
        types.FunctionType(ERASE),
        types.int32[::1],
        _int64,
        types.uint8[::1],
        types.int64,
        types.uint32[:, ::1],
        _taken,
        types.uint64[::1],
        LAYOUT_TYPE,
        RING_TYPE,
        _int64,
        _int64,
        types.uint32[:, ::1],
        types.uint32[:, ::1],
        _int64,
        _int64,
        _int64,
        types.int64,
    )
)
def receive(
    take: Any,
    put: Any,
    erase: Any,
    descriptors: Any,
    ports: Any,
    datagrams: Any,
    stride: int,
    messages: Any,
    taken: Any,
    waiting: Any,
    layout: Any,
    ring: Any,
    local: Any,
    timespec: Any,
    names: Any,
    allowed: Any,
    rooms: Any,
    unread: Any,
    crew: Any,
    me: int,
) -> None:
    """Receive until told to leave, as one of the crew.

    Parameters
    ----------
    take, put, erase : the detector's kernels, of the signatures TAKE, PUT and ERASE
    descriptors  : (sockets,) int32, non-blocking UDP sockets of this thread
    ports        : (sockets,) int64, which row of the layout each is
    datagrams, stride, messages : a DatagramBatch
    taken        : (batch, 2) int64, scratch
    waiting      : (sockets,) uint64, struct pollfd of the same sockets
    layout       : (ports,) LAYOUT
    ring         : Ring
    local        : (Local.COUNT,) int64, of all threads
    timespec     : (2,) int64, scratch
    names, allowed : who sent each datagram and who may, of ``sources``; no rows: everybody may
    rooms        : (sockets,) int64, bytes that each socket holds at most, as the kernel counts them
    unread       : (sockets,) int64, scratch
    crew, me     : what the threads share, of ``crew.new_crew``, and which of them this is
    """
    batch = messages.shape[0]
    last_packet = now_ns(1, timespec)
    while ring.words[Word.LEAVE] == 0:
        now = begin_turn(crew, me, ring.words, timespec)
        real = now_ns(0, timespec)
        ending = 0
        if is_ordered(ring):
            enter(crew)
            ending = take_orders(ring, local, layout, erase)
            leave(crew)
            if ending != 0:
                begin_draining(crew, me, ending, rooms, unread)
        busy = False
        on_trial = is_on_trial(ring)
        for k in range(descriptors.shape[0]):
            n = recvmmsg(descriptors[k], messages.ctypes.data, np.uint32(batch), np.int32(FLAGS), 0)
            is_read = n < batch
            if ending != 0:
                count_read(messages, n, unread, k)
            begin_reading(ring.arms, ports[k], now)
            note_batch(ring.arms, ports[k], n, batch, now)
            if n <= 0:
                if on_trial:
                    look_for_next_frame(ring, local, taken, 0, ports[k], is_read, now)
                continue
            last_packet = now
            busy |= not is_read
            if names.shape[0] > 0:
                enter(crew)
                n = drop_foreign(names, allowed, datagrams, stride, messages, n, ring)
                leave(crew)
            place(
                take,
                put,
                erase,
                datagrams,
                stride,
                messages,
                n,
                layout,
                ports[k],
                now,
                real,
                ring,
                local,
                taken,
                crew,
            )
            ring.sockets[ports[k], SocketState.RECEIVED] += n
            if on_trial:
                look_for_next_frame(ring, local, taken, n, ports[k], is_read, now)
        enter(crew)
        publish_ready(ring, local, layout, erase, now)
        if ending != 0 and everybody_has_drained(crew, me, ending, unread):
            end_run(ring, local, layout, erase, ending)
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
            poll(waiting.ctypes.data, np.uint64(waiting.shape[0]), np.int32(POLL_MS))
