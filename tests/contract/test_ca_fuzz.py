"""Ten thousand random puts, messages and datagrams: the service lives, answers, and grows no fatter."""

from __future__ import annotations

import ctypes
import random
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from caproto import ChannelType, native_type

from benchmarks.memory import resident_mb
from ioc.pvs.daq import PVS
from ioc.pvs.row import Row
from ioc.records.dbr import element_bytes, packed, structure
from tests.channel_access.ca_wire import (
    CREATE,
    ECHO,
    ENUM,
    ERROR,
    EVENT_ADD,
    EXTENDED,
    GREETING,
    HEADER,
    READ_NOTIFY,
    WRITE_NOTIFY,
    Connection,
    any_message,
    message,
    search,
)
from tests.processes.service import Service

N = 10_000
BATCH, PATIENT = 100, 300  # puts sent at once, and that may wait for the end of what they began
MAY_GROW_MB = 30.0
ENDS_THE_PROCESS = {"SYSRESET"}
NATIVE = tuple(ChannelType)[:7]
ROWS = [row for row in PVS if row.name not in ENDS_THE_PROCESS]
WORDS = (
    *(b"", b"1", b"-1", b"0", b"nan", b"1e99", b"Start", b"Apply", b"Done", b"eiger", b"{}", b"%s%s"),
    *(b"/tmp/x", b"/dev/null", b"\xff\xfe", b"x" * 40, "µm".encode(), b'{"n_modules": 2}'),
)


@contextmanager
def survives(service: Service) -> Iterator[random.Random]:
    """Give out chance, with its seed in a failure; then demand that the service is whole and not fatter."""
    seed = secrets.randbits(32)
    print("seed", seed)  # pytest shows it when the test fails
    before = resident_mb(service.pid)
    yield random.Random(seed)
    assert service.running, service.log()[-3000:]
    with Connection(service.ca_port) as wire:
        values = wire.values(wire.channels([row.pv(service.prefix) for row in PVS]))
        assert len(values) == len(PVS)
        assert set(map(len, values)) == {40}
    assert "Traceback" not in service.log()  # errors of ours; that a config does not run is the user's
    assert resident_mb(service.pid) - before < MAY_GROW_MB


def random_put(rng: random.Random, row: Row, sid: int, ioid: int) -> bytes:
    """Return a put as any DBR type, of values that may mean something to the PV."""
    kind = rng.choice(tuple(ChannelType)) if rng.random() < 0.4 else rng.choice(NATIVE)
    native = native_type(kind) if kind < ChannelType.PUT_ACKT else ChannelType.INT
    n = rng.choice((1, 1, 1, 1, 2, 0, min(row.nelm, 40), min(row.nelm, 2000)))
    metadata = b"" if kind in NATIVE else rng.randbytes(ctypes.sizeof(structure(kind)))
    payload = metadata + b"".join(random_value(rng, native) for _ in range(n))
    return message(WRITE_NOTIFY, payload, int(kind), n, sid, ioid)


def random_value(rng: random.Random, native: ChannelType) -> bytes:
    """Return an element of a native type."""
    if native is ChannelType.STRING:
        return rng.choice(WORDS)[:40].ljust(40, b"\0")
    if rng.random() < 0.2:
        return rng.randbytes(element_bytes(native))
    return packed([rng.choice((0, 1, 2, 3, 7, 16, 32, -1, 1.5, 1e9, float("nan"), float("inf")))], native)


def test_ten_thousand_random_puts_are_each_answered_once(service: Service) -> None:
    sent: set[int] = set()
    answered: Counter[int] = Counter()
    with survives(service) as rng, Connection(service.ca_port) as wire, Connection(service.ca_port) as other:
        sids = wire.channels([row.pv(service.prefix) for row in ROWS])
        (stop,) = other.channels([f"{service.prefix}DAQ:Stop"])
        while len(sent) < N:
            first = len(sent)
            sent.update(range(first, first + BATCH))
            for ioid in range(first, first + BATCH):
                at = rng.randrange(len(ROWS))
                wire.send(random_put(rng, ROWS[at], sids[at], ioid))
            while answered.total() < len(sent) - PATIENT:
                note_answer(wire, answered)
        while answered.total() < N:  # who waits for images is released, again and again
            other.send(message(WRITE_NOTIFY, struct.pack(">H", 1), ENUM, 1, stop, 1))
            other.answers(WRITE_NOTIFY)
            wire.send(message(ECHO))
            while note_answer(wire, answered):
                pass
    assert set(answered) == sent
    assert set(answered.values()) == {1}


def note_answer(wire: Connection, answered: Counter[int]) -> bool:
    """Wait for the answer of a put; False for that of an echo."""
    answer = wire.answer()
    assert answer is not None, "the circuit was closed"
    if answer.command == ERROR:  # the request's header is in it, with its ioid
        answered[HEADER.unpack(answer.payload[: HEADER.size])[5]] += 1
    elif answer.command == WRITE_NOTIFY:
        answered[answer.p2] += 1
    return answer.command != ECHO


def test_ten_thousand_broken_messages_by_tcp_end_their_own_circuits(service: Service) -> None:
    names = [row.pv(service.prefix) for row in ROWS if row.put is None]
    n_closed = 0
    with survives(service) as rng, Connection(service.ca_port) as bystander:
        (state,) = bystander.channels([f"{service.prefix}DAQ:State_RBV"])
        n_sent = 0
        while n_sent < N:
            with ExitStack() as opened:
                wires = [opened.enter_context(Connection(service.ca_port)) for _ in range(20)]
                for wire in wires:
                    sids = wire.channels(rng.sample(names, 3))
                    n = rng.choice((1, 1, 2, 4, 8))
                    n_sent += n
                    with suppress(ConnectionError):  # it was quick to close
                        wire.send(*(any_message(rng, sids, names) for _ in range(n)))
                        wire.socket.shutdown(socket.SHUT_WR)
                n_closed += sum(wire.is_closed() for wire in wires)
                assert n_closed % len(wires) == 0
            assert bystander.values([state])[0].startswith(b"READY")


def test_ten_thousand_broken_datagrams_change_nothing(service: Service) -> None:
    names = [row.pv(service.prefix) for row in PVS]
    with survives(service) as rng, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", service.ca_port))
        udp.settimeout(20)
        for n in range(N):
            udp.send(rng.choice((any_message(rng, (), names), GREETING + any_message(rng, (), names)))[:1400])
            if n % 50 == 0:  # no more than the socket's buffer holds
                udp.send(GREETING + search(rng.choice(names), cid=2**20 + n))
                while struct.pack(">I", 2**20 + n) not in udp.recv(1500):
                    pass


@pytest.mark.parametrize("size", [2**19, 2**24, 2**31, 2**32 - 8])
def test_a_header_that_announces_too_much_is_not_believed(service: Service, size: int) -> None:
    with survives(service) as rng:
        for command in range(30):
            with Connection(service.ca_port) as wire:
                wire.send(
                    EXTENDED.pack(command, 0xFFFF, rng.randrange(40), 0, 1, 1, size, rng.choice((1, size)))
                )
                assert wire.is_closed()


def test_what_a_client_asks_for_in_vain_leaves_nothing_behind(service: Service) -> None:
    """Names that are not there, monitors and reads of too many elements, channels that come and go."""
    with survives(service), Connection(service.ca_port) as wire:
        name = f"{service.prefix}DAQ:State_RBV"
        (sid,) = wire.channels([name])
        mask = struct.pack(">fffHH", 0, 0, 0, 1, 0)

        def in_vain(n: int, first: int) -> None:
            ids = range(first, first + n)
            wire.send(*(message(CREATE, b"NO:SUCH:PV\0", p1=10**6 + i, p2=13) for i in ids))
            wire.send(*(message(EVENT_ADD, mask, ENUM, 50_000, sid, i) for i in ids))
            wire.send(*(message(READ_NOTIFY, b"", ENUM, 50_000, sid, i) for i in ids))
            wire.answers(ERROR, 2 * n)
            wire.clear(wire.channels([name] * n))

        in_vain(500, first=0)
        before = resident_mb(service.pid)
        for first in range(500, 5_000, 500):
            in_vain(500, first)
        assert resident_mb(service.pid) - before < 4
