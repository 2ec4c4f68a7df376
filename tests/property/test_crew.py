"""Several receive threads at once make of the same packets the same images as one: none lost, torn or twice.

The threads run the compiled kernels side by side, without the GIL, on one ring; the
packets of each port come in any order within their image, some are lost.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from daq_core.assembling.assembly import is_settled
from daq_core.assembling.gate import begin_turn, enter, leave, new_crew, rest_until
from daq_core.assembling.orders import take_orders
from daq_core.assembling.placing import kernels_of
from daq_core.assembling.publication import publish_ready
from daq_core.assembling.signatures import (
    ASSEMBLY_TYPE,
    ERASE,
    LAYOUT_TYPE,
    PUT,
    TAKE,
    Batch,
    Clock,
    Port,
)
from daq_core.config import DaqConfig
from daq_core.detectors import format_of
from daq_core.kernels.compiling import JIT, kernel_of
from daq_core.kernels.loading import load_kernels
from daq_core.linux.sockets import MESSAGE_LENGTH, DatagramBatch
from daq_core.receiving.loop import place
from daq_core.receiving.packets import forget_half_placed
from daq_core.ring.ring import COMPLETE, INCOMPLETE, MISSING_PACKETS, OPEN
from daq_core.ring.words import Word
from daq_core.simulating.simulator import Simulator
from tests.assembly.assembler import Assembler
from tests.property.geometries import configs, gigafrost, gigafrosts

N_IMAGES, N_SLOTS = 24, 32
BATCH = 8
TIMEOUT = 10**15

_words, _many = types.int64[::1], types.int64[:, ::1]


@kernel_of(
    types.int64(
        types.FunctionType(TAKE),
        types.FunctionType(PUT),
        types.FunctionType(ERASE),
        types.uint8[:, ::1],
        types.int64,
        types.uint32[:, :, ::1],
        types.int64[:, ::1],
        LAYOUT_TYPE,
        ASSEMBLY_TYPE,
        _many,
        _words,
        types.int64,
        _words,
    )
)
def work(
    take: Any,
    put: Any,
    erase: Any,
    batches: Any,
    stride: int,
    messages: Any,
    plan: Any,
    layout: Any,
    assembly: Any,
    taken: Any,
    crew: Any,
    me: int,
    timespec: Any,
) -> int:
    """Do as ``receive_loop.receive`` does; plan (batches, 2): port and number of the datagrams of each batch.

    Returns how many images were published while pixels of them were still being copied.
    """
    ring = assembly.ring
    n_torn = 0
    for i in range(plan.shape[0]):
        begin_turn(crew, me, ring.words, timespec)
        enter(crew)
        take_orders(assembly, layout, erase)
        leave(crew)
        batch = Batch(batches[i], stride, messages[i], taken)
        place(take, put, erase, batch, plan[i, 1], Port(layout, plan[i, 0]), Clock(1, 1), assembly, crew)
        enter(crew)
        published = ring.words[Word.PUBLISHED]
        publish_ready(assembly, layout, erase, 1)
        for sequence in range(published, ring.words[Word.PUBLISHED]):
            n_torn += not is_settled(ring, sequence % ring.slots.shape[0])
        leave(crew)
    rest_until(crew, me, 2**62)
    return n_torn


class Stream:
    """What one thread's sockets hold: the datagrams of its ports, in batches."""

    def __init__(self, batches: list[tuple[int, list[npt.NDArray[np.uint8]]]], datagram_bytes: int) -> None:
        self.stride = DatagramBatch(1, datagram_bytes).stride
        self.plan = np.array([(port, len(sent)) for port, sent in batches], np.int64).reshape(-1, 2)
        self.data = np.zeros((len(batches), BATCH * self.stride), np.uint8)
        self.messages = np.zeros((len(batches), BATCH, 16), np.uint32)
        for i, (_, sent) in enumerate(batches):
            for k, datagram in enumerate(sent):
                self.data[i, k * self.stride : k * self.stride + len(datagram)] = datagram
                self.messages[i, k, MESSAGE_LENGTH] = len(datagram)


def streams_of(
    config: DaqConfig, simulator: Simulator, n_threads: int, random: np.random.Generator, loss: float
) -> tuple[list[Stream], dict[int, int]]:
    """Return each thread's stream, and how many packets of each image are lost; never all of a port."""
    form = format_of(config)
    n_ports = len(simulator.ports)
    queues: list[list[tuple[int, list[npt.NDArray[np.uint8]]]]] = [[] for _ in range(n_threads)]
    lost = dict.fromkeys(range(1, N_IMAGES + 1), 0)
    for image_id in lost:
        packets = simulator.packets(image_id)
        for port in range(n_ports):
            here = simulator.layout.ports[port]
            lengths = form.lengths(packets[port], here) if len(packets[port]) else []
            datagrams = [one[:n].copy() for one, n in zip(packets[port], lengths, strict=True)]
            order = random.permutation(len(datagrams)).tolist()
            is_first = image_id == 1  # it comes whole: a receiver may have begun within a frame
            kept = [i for k, i in enumerate(order) if k == 0 or is_first or random.random() >= loss]
            lost[image_id] += len(order) - len(kept)
            for first in range(0, len(kept), BATCH):
                queues[port % n_threads].append((port, [datagrams[i] for i in kept[first : first + BATCH]]))
    return [Stream(queue, simulator.layout.datagram_bytes) for queue in queues], lost


DETECTORS = {
    "jungfrau": configs("jungfrau-16", rows=(16, 64)),
    "eiger-4": configs("eiger-4", most=4),
    "eiger-12": configs("eiger-12", most=2),
    "gigafrost": gigafrosts(largest=144),
}


@pytest.mark.skipif(not JIT, reason="uncompiled kernels hold the GIL: nothing runs side by side")
@pytest.mark.parametrize("kind", DETECTORS)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_threads_make_the_images_that_one_would(kind: str, data: st.DataObject) -> None:
    load_kernels()
    config: DaqConfig = data.draw(DETECTORS[kind]).merge({"module_sync_queue_size": 16})
    n_threads = data.draw(st.integers(2, 4), label="threads")
    loss = data.draw(st.sampled_from([0.0, 0.05]), label="loss")
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    assembler, simulator = Assembler(config, N_SLOTS), Simulator(config)
    assembler.ring.pixels[:, : assembler.layout.image_bytes] = 0  # gaps
    streams, lost = streams_of(config, simulator, n_threads, random, loss)
    assembler.words[Word.EPOCH] = 1
    crew = new_crew(n_threads)
    kernels, layout = kernels_of(config), assembler.layout

    torn = [-1] * n_threads

    def run(me: int, stream: Stream) -> None:
        taken, timespec = np.zeros((BATCH, 2), np.int64), np.zeros(2, np.int64)
        batches = (stream.data, stream.stride, stream.messages, stream.plan)
        torn[me] = work(*kernels, *batches, layout.ports, assembler.assembly, taken, crew, me, timespec)

    threads = [threading.Thread(target=run, args=(me, one)) for me, one in enumerate(streams)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    for thread in threads:
        thread.join(deadline - time.monotonic())
        assert not thread.is_alive()
    assert torn == [0] * n_threads
    assembler.publish_ready(TIMEOUT)

    words = assembler.words
    assert words[Word.PUBLISHED] == words[Word.OPENED] == words[Word.IMAGES_PUBLISHED] == N_IMAGES
    assert words[Word.PLACED] == words[Word.RECEIVED] == sum(int(one.plan[:, 1].sum()) for one in streams)
    assert words[Word.DUPLICATE] == words[Word.LATE] == words[Word.MALFORMED] == words[Word.UNPLACED] == 0
    assert words[Word.RUN_KEPT] == N_IMAGES
    assert sorted(int(assembler.slot(s).frame) for s in range(N_IMAGES)) == sorted(lost)
    for sequence in range(N_IMAGES):
        slot, image = assembler.slot(sequence), assembler.image(sequence)
        n_lost, expected = lost[int(slot.frame)], simulator.image(int(slot.frame))
        assert slot.state == (INCOMPLETE if n_lost else COMPLETE)
        assert slot.n_missing == n_lost
        if n_lost:
            assert slot.status == MISSING_PACKETS
            assert ((image == expected) | (image == 0)).all()
        else:
            np.testing.assert_array_equal(image, expected)


def test_what_a_killed_receiver_left_half_placed_is_missing() -> None:
    """Its threads had marked packets whose pixels they did not copy any more."""
    assembler = Assembler(small_camera(), N_SLOTS)
    simulator = Simulator(assembler.config)
    for frame in (1, 2):
        for port, datagrams in enumerate(simulator.packets(frame)[:1]):
            lengths = assembler.form.lengths(datagrams, assembler.layout.ports[port])
            assembler.receive_at(port, [d[:n].tobytes() for d, n in zip(datagrams, lengths, strict=True)])
    assembler.ring.placed[1] -= 1
    n_whole = int(assembler.slot(0).n_received)

    forget_half_placed(assembler.ring)

    assert (assembler.slot(0).state, assembler.slot(0).n_received) == (OPEN, n_whole)
    assert (assembler.slot(1).state, assembler.slot(1).n_received) == (OPEN, 0)
    assembler.publish_ready(TIMEOUT)
    assert assembler.n_published == 2
    assert not assembler.image(1).any()


def small_camera() -> DaqConfig:
    return gigafrost(image_pixel_height=8, image_pixel_width=72, n_udp_ports=8)
