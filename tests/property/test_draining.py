"""A run that is stopped has every image that was in the sockets by then, and no stream holds up its end."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from daq_core.assembling.draining import begin_draining, count_read, everybody_has_drained
from daq_core.assembling.gate import new_crew
from daq_core.kernels.compiling import JIT, kernel_of
from daq_core.kernels.loading import load_kernels
from daq_core.linux.sockets import MESSAGE_LENGTH, kernel_drops
from daq_core.ring.ring import COMPLETE, INCOMPLETE
from daq_core.simulating.simulator import Simulator
from tests.daq.loopback import jungfrau
from tests.daq.still_receiver import StillReceiver
from tests.oracle.draining import OVERHEAD, ReferenceThread

_words = types.int64[::1]


@kernel_of(types.void(_words, types.int64, types.int64, _words, _words))
def _begin(crew: Any, me: int, epoch: int, rooms: Any, unread: Any) -> None:
    begin_draining(crew, me, epoch, rooms, unread)


@kernel_of(types.void(types.uint32[:, ::1], types.int64, _words, types.int64))
def _count(messages: Any, n: int, unread: Any, k: int) -> None:
    count_read(messages, n, unread, k)


@kernel_of(types.boolean(_words, types.int64, types.int64, _words))
def _everybody(crew: Any, me: int, epoch: int, unread: Any) -> bool:
    return everybody_has_drained(crew, me, epoch, unread)


BATCH = 3
ROOM = 8000  # bytes
N_SLOTS = 32


class Thread:
    """A receive thread with sockets made of lists: (length, whether it was there when the stop came)."""

    def __init__(self, crew: Any, me: int, n_sockets: int) -> None:
        self.crew, self.me = crew, me
        self.sockets: list[deque[tuple[int, bool]]] = [deque() for _ in range(n_sockets)]
        self.rooms, self.unread = np.full(n_sockets, ROOM), np.zeros(n_sockets, np.int64)
        self.messages = np.zeros((BATCH, 16), np.uint32)
        self.reference = ReferenceThread(self.rooms.tolist())

    def arrive(self, k: int, length: int) -> None:
        """Let a datagram arrive, or be dropped as the kernel does it: when the room was used up before."""
        if sum(one + OVERHEAD for one, _ in self.sockets[k]) <= ROOM:
            self.sockets[k].append((length, False))

    def stop_comes(self) -> None:
        self.sockets = [deque((length, True) for length, _ in one) for one in self.sockets]

    def turn(self, order: int) -> bool:
        """Read each socket once, as the receive loop does, and return whether it would end the run."""
        _begin(self.crew, self.me, order, self.rooms, self.unread)
        self.reference.see(order)
        for k, waiting in enumerate(self.sockets):
            lengths = [waiting.popleft()[0] for _ in range(min(BATCH, len(waiting)))]
            self.messages[: len(lengths), MESSAGE_LENGTH] = lengths
            _count(self.messages, len(lengths) or -1, self.unread, k)
            self.reference.read(k, BATCH, lengths)
        self.reference.end_turn()
        return bool(_everybody(self.crew, self.me, order, self.unread))


@given(data=st.data(), n_sockets=st.lists(st.integers(1, 3), min_size=1, max_size=3))
@settings(max_examples=200 if JIT else 50, deadline=None)
def test_a_run_ends_when_each_thread_has_read_what_was_there(
    data: st.DataObject, n_sockets: list[int]
) -> None:
    load_kernels()
    crew = new_crew(len(n_sockets))
    threads = [Thread(crew, me, n) for me, n in enumerate(n_sockets)]
    lengths = st.sampled_from([0, 1, 100, 1000, 7000])
    n_arriving = data.draw(
        st.sampled_from([0, 1, 2, 2 * BATCH]), label="datagrams between two turns, at most"
    )

    def let_arrive(most: int) -> None:
        for thread in threads:
            for k in range(len(thread.sockets)):
                for length in data.draw(st.lists(lengths, max_size=most)):
                    thread.arrive(k, length)

    for order in (2, 4):
        let_arrive(30)
        for thread in threads:
            thread.stop_comes()
        for _ in range(len(threads) * ROOM // OVERHEAD):
            thread = data.draw(st.sampled_from(threads))
            has_ended = thread.turn(order)
            assert has_ended == all(one.reference.drained_for == order for one in threads)
            if has_ended:
                break
            let_arrive(n_arriving)
        else:
            continue  # some thread had no turn in all the time
        assert not any(was_there for one in threads for waiting in one.sockets for _, was_there in waiting)


@given(data=st.data())
@settings(max_examples=50 if JIT else 3, deadline=None)
def test_the_loop_keeps_what_was_in_its_sockets_when_the_stop_came(data: st.DataObject) -> None:
    """Real sockets, filled before the loop looks at them; a turn takes four datagrams from each or fewer."""
    config = jungfrau(data.draw(st.integers(1, 3), label="modules"), rows=8, module_sync_queue_size=8)
    n_images = data.draw(st.integers(1, 8), label="images")
    packets = Simulator(config).packets
    sent = {i: [(k, d.tobytes()) for k, some in enumerate(packets(i)) for d in some] for i in range(n_images)}
    lost = data.draw(
        st.sets(st.sampled_from([(i, n) for i in sent for n in range(len(sent[i]))]), max_size=2)
    )
    shuffle = data.draw(st.randoms(use_true_random=False))
    for of_image in sent.values():
        shuffle.shuffle(of_image)

    receiver = StillReceiver(config, N_SLOTS, n_threads=data.draw(st.integers(1, 3), label="threads"))
    with contextlib.closing(receiver):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for i, of_image in sent.items():
                for n, (port, datagram) in enumerate(of_image):
                    if (i, n) not in lost:
                        sender.sendto(datagram, receiver.sockets[port].getsockname())
        assert sum(map(kernel_drops, receiver.sockets)) == 0
        receiver.ask_for_run()
        receiver.ask_for_end()
        with receiver.running():
            receiver.wait_for_end()

    incomplete = {i for i, _ in lost}
    kept = receiver.images_of_the_run()
    assert [i for i, state in kept.items() if state == COMPLETE] == [i for i in kept if i not in incomplete]
    assert {i for i, state in kept.items() if state == INCOMPLETE} <= incomplete
    assert set(sent) - incomplete <= set(kept)
