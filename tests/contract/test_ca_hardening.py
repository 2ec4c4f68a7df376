"""One Channel Access client cannot hurt another, whatever it sends or does not read."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from daq_core.errors import Unavailable
from ioc.channel_access.circuits import MAX_CHANNELS, MAX_MONITORS
from ioc.channel_access.puts import MAX_PUTS
from ioc.pvs.daq import PVS
from tests.channel_access.ca_wire import (
    CHAR,
    CREATE,
    CREATE_FAILED,
    ENUM,
    ERROR,
    EVENT_ADD,
    EVENT_CANCEL,
    LONG,
    READ_NOTIFY,
    WRITE,
    WRITE_NOTIFY,
    Connection,
    message,
)
from tests.channel_access.epics_peer import EpicsPeer
from tests.channel_access.ioc_thread import IocThread


@pytest.mark.timeout(180)
def test_a_client_that_stops_reading_is_disconnected_and_counted(ioc: IocThread, peer: EpicsPeer) -> None:
    names = [row.pv(ioc.prefix) for row in PVS]
    beat, counted = ioc.pv("IOC:HEARTBEAT"), ioc.pv("IOC:CaStalled_RBV")
    before = ioc.ioc.server.counts.n_stalled
    with EpicsPeer(ioc.ca_port) as sleeper:
        sleeper.monitor(*names)
        peer.monitor(beat, counted)
        n_beats = len(peer.updates(beat))
        os.kill(sleeper.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 60
        while ioc.ioc.server.counts.n_stalled == before:
            assert time.monotonic() < deadline
            ioc.do(flood(ioc))
            time.sleep(0.01)
    peer.wait_for(counted, 1)
    assert len(peer.updates(beat)) > n_beats
    stalled = peer.updates(counted).index(1)
    assert peer.alarms(counted)[stalled][1] == 1
    while peer.updates(counted)[-1] != 0:  # it is disconnected: nobody is stalled any more
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert peer.info(counted)["severity"] == 0


async def flood(ioc: IocThread) -> None:
    """Change long texts, so that the buffers of a client that does not read are full soon."""
    log = ioc.daq.snapshot.log
    status = ioc.daq.snapshot.status
    ioc.daq.publish(config_id=f"{time.time_ns()}-0", status=status, log=log)
    for record in ioc.ioc.records.values():
        if record.nelm == 65536:
            record.post("x" * 60000 + str(time.time_ns()), time=time.time())


def test_a_read_sent_right_behind_a_put_sees_the_new_value(ioc: IocThread) -> None:
    with Connection(ioc.ca_port) as wire:
        (sid,) = wire.channels([ioc.pv("DAQ:NImages")])
        for n in range(1, 50):
            put = message(WRITE, struct.pack(">i", n), kind=LONG, n=1, p1=sid, p2=n)
            wire.send(put, message(READ_NOTIFY, kind=LONG, n=1, p1=sid, p2=n))
            (read,) = wire.answers(READ_NOTIFY)
            assert struct.unpack(">i", read.payload[:4]) == (n,)


def test_a_channel_that_is_cleared_during_a_put_leaves_the_server_alive(
    ioc: IocThread, peer: EpicsPeer
) -> None:
    with Connection(ioc.ca_port) as wire:
        (sid,) = wire.channels([ioc.pv("DAQ:Stop")])
        wire.send(message(WRITE_NOTIFY, struct.pack(">H", 1), kind=ENUM, n=1, p1=sid, p2=1))
        wire.clear([sid])
    assert peer.get(ioc.pv("IOC:Errors_RBV")) == 0


def test_a_refused_put_says_why_in_its_error(ioc: IocThread) -> None:
    with Connection(ioc.ca_port) as wire:
        (sid,) = wire.channels([ioc.pv("DAQ:NImages")])
        wire.send(message(WRITE, struct.pack(">i", 0), kind=LONG, n=1, p1=sid, p2=1))
        (error,) = wire.answers(ERROR)
        assert b"takes 1 to 2147483647, got 0" in error.payload


def test_what_is_sent_does_not_wait_for_the_client_to_acknowledge_what_was_sent_before(
    ioc: IocThread,
) -> None:
    """Nagle's algorithm held back a put's completion behind the monitor's update, by 40 ms."""
    with Connection(ioc.ca_port) as wire:
        wire.channels([ioc.pv("DAQ:NImages")])
        (circuit,) = [
            circuit
            for circuit in ioc.ioc.server.circuits
            if circuit.writer.get_extra_info("peername") == wire.socket.getsockname()
        ]
        sock = circuit.writer.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_client_gets_so_many_channels_monitors_and_waiting_puts_and_no_more(ioc: IocThread) -> None:
    with Connection(ioc.ca_port) as wire:
        sids = wire.channels([ioc.pv("cam1:Acquire")] * MAX_CHANNELS)
        wire.send(message(CREATE, ioc.pv("cam1:Acquire").encode() + b"\0", p1=0, p2=13))
        wire.answers(CREATE_FAILED)
        wire.clear(sids[1:])

        wire.send(*(monitor(sids[0], number) for number in range(MAX_MONITORS + 1)))
        (refused,) = wire.answers(ERROR)
        assert b"monitors already" in refused.payload
        wire.send(*(message(EVENT_CANCEL, kind=ENUM, n=1, p1=sids[0], p2=n) for n in range(MAX_MONITORS)))

        (path,) = wire.channels([ioc.pv("HDF1:FilePath")])
        puts = [message(WRITE_NOTIFY, b"/tmp\0", CHAR, 5, path, n) for n in range(10 * MAX_PUTS)]
        with looking_at_folders_held(ioc):
            wire.send(*puts)
            errors = wire.answers(ERROR, 9 * MAX_PUTS)
        assert all(b"puts of this client wait already" in error.payload for error in errors)
        assert len(wire.answers(WRITE_NOTIFY, MAX_PUTS)) == MAX_PUTS


def monitor(sid: int, number: int) -> bytes:
    """Return the wish to be told of a channel's values."""
    mask = struct.pack(">fffHH", 0, 0, 0, 1, 0)
    return message(EVENT_ADD, mask, kind=ENUM, n=1, p1=sid, p2=number)


@contextmanager
def looking_at_folders_held(ioc: IocThread) -> Iterator[None]:
    """Let no put of FilePath complete meanwhile, as a file system does that does not answer."""
    ioc.do(hold(ioc.daq.folders_answer))
    yield
    ioc.do(release(ioc.daq.folders_answer))


async def hold(answers: asyncio.Event) -> None:
    answers.clear()


async def release(answers: asyncio.Event) -> None:
    answers.set()


def test_a_second_server_on_the_port_is_refused_with_what_to_do(ioc: IocThread) -> None:
    second = IocThread(ioc.config)
    second.ca_port = ioc.ca_port
    with pytest.raises(Unavailable, match=rf"port {ioc.ca_port} .*--ca-port"), second:
        pass
