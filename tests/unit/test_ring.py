"""The image ring: its sizes, that two mappings are the same memory, and waiting for the other side."""

from __future__ import annotations

import os
import stat
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types

from daq_core.kernels.compiling import kernel_of, wake
from daq_core.linux.futex import wait_for_change
from daq_core.ring.ring import OPEN, SLOT, Ring, RingShape, choose_n_slots
from daq_core.ring.words import SocketState, Word

SHAPE = RingShape(n_slots=9, n_modules=3, n_units=130, room_bytes=5000)


@kernel_of(types.void(types.int64[::1], types.int64))
def wake_up(words: np.ndarray, index: int) -> None:
    wake(words, index)


def attached(shape: RingShape, n: int = 1) -> list[Ring]:
    descriptor = shape.create()
    try:
        return [shape.attach(descriptor) for _ in range(n)]
    finally:
        os.close(descriptor)


@given(
    n_slots=st.integers(1, 300),
    n_modules=st.integers(1, 600),
    n_units=st.integers(1, 5000),
    room_bytes=st.integers(1, 50_000),
    n_ports=st.integers(1, 600),
)
def test_the_parts_of_a_ring_have_room_do_not_overlap_and_start_on_pages(
    n_slots: int, n_modules: int, n_units: int, room_bytes: int, n_ports: int
) -> None:
    shape = RingShape(n_slots, n_modules, n_units, room_bytes, n_ports)
    (ring,) = attached(shape)
    assert ring.words.shape == (Word.COUNT + 2 * n_slots,)
    assert ring.module_packets.shape == (n_modules,)
    assert ring.slots.shape == (n_slots,)
    assert ring.marks.shape == (n_slots, -(-n_units // 64))
    assert ring.placed.shape == (n_slots,)
    assert ring.pixels.shape == (n_slots, shape.slot_bytes)
    assert ring.sockets.shape == (n_ports, SocketState.COUNT)
    assert shape.slot_bytes >= room_bytes
    ends = 0
    base = ring.words.ctypes.data
    for part in ring:
        start = part.ctypes.data - base
        assert start % 4096 == 0
        assert start >= ends
        ends = start + part.nbytes
    assert ends <= shape.total_bytes


def test_every_slot_starts_on_a_page() -> None:
    (ring,) = attached(SHAPE)
    assert SHAPE.slot_bytes == 8192
    assert all(ring.pixels[slot].ctypes.data % 4096 == 0 for slot in range(SHAPE.n_slots))


def test_a_new_ring_is_zero_and_its_memory_only_for_this_user() -> None:
    descriptor = SHAPE.create()
    try:
        status = os.fstat(descriptor)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == SHAPE.total_bytes
        assert not os.get_inheritable(descriptor)
        ring = SHAPE.attach(descriptor)
    finally:
        os.close(descriptor)
    assert not any(part.view(np.uint8).any() for part in (ring.words, ring.marks, ring.pixels))


def test_two_mappings_see_each_other_also_when_the_descriptor_is_closed() -> None:
    ours, theirs = attached(SHAPE, 2)
    ours.words[Word.PUBLISHED] = 7
    ours.module_packets[2] = 8
    ours.slots[8].frame = 2**64 - 1
    ours.slots[8].state = OPEN
    ours.marks[8, 2] = np.uint64(2**63)
    ours.pixels[8, -1] = 9
    assert theirs.words[Word.PUBLISHED] == 7
    assert theirs.module_packets.tolist() == [0, 0, 8]
    assert (int(theirs.slots[8].frame), theirs.slots[8].state) == (2**64 - 1, OPEN)
    assert int(theirs.marks[8, 2]) == 2**63
    assert theirs.pixels[8, -1] == 9


def test_words_have_one_index_each_and_different_writers_no_common_cache_line() -> None:
    indices = [index for name, index in Word._asdict().items() if name not in ("COUNT", "VERDICTS")]
    assert len(set(indices)) == len(indices)
    assert max(indices) < Word.COUNT
    control = {Word.EPOCH, Word.N_IMAGES, Word.WRITER_DONE, Word.N_WRITERS, Word.START_ID, Word.BEHIND_ID}
    housekeeping = {Word.KERNEL_DROPS, Word.SOCKET_BUFFER}
    progress = {Word.CONSUMED, Word.COMPLETED, Word.LATENCY_NS}
    writer = progress | {Word.DISK_FREE, Word.GIVEN_UP, Word.INVALID_PIXELS}
    receiver = set(indices) - control - housekeeping - writer
    lines = [{index // 8 for index in words} for words in (control, receiver, housekeeping, writer)]
    assert sum(map(len, lines)) == len(set().union(*lines))


@given(
    room_bytes=st.integers(1, 2**32 - 1),
    ram_buffer_gb=st.floats(0, 4096),
    free_bytes=st.integers(0, 2**42),
    n_units=st.integers(1, 10_000),
)
def test_a_ring_has_8_images_at_least_and_else_no_more_memory_than_allowed(
    room_bytes: int, ram_buffer_gb: float, free_bytes: int, n_units: int
) -> None:
    n_slots = choose_n_slots(room_bytes, ram_buffer_gb, free_bytes, n_modules=4, n_units=n_units)
    assert 8 <= n_slots <= 1_000_000
    allowed = ram_buffer_gb * 2**30 if ram_buffer_gb > 0 else min(2**30, free_bytes / 4)
    slack = 7 * 4096  # each part is rounded up to a page
    if n_slots > 8:
        assert RingShape(n_slots, 4, n_units, room_bytes).total_bytes <= allowed + slack


@pytest.mark.parametrize(
    ("ram_buffer_gb", "free_gb", "n_slots"),
    [(0, 64, 1023), (0, 2, 511), (0, 0, 8), (2, 0, 2047), (0.001, 64, 8)],
    ids=[
        "1 GiB",
        "a quarter of the free memory",
        "8 images",
        "as configured",
        "8 images though configured less",
    ],
)
def test_the_size_of_a_ring_of_1_MiB_images(ram_buffer_gb: float, free_gb: int, n_slots: int) -> None:
    assert choose_n_slots(2**20, ram_buffer_gb, free_gb * 2**30, n_modules=1, n_units=128) == n_slots


def test_a_slot_record_has_no_surprise_in_its_layout() -> None:
    assert SLOT.itemsize == 64


def test_waiting_ends_at_once_when_the_word_has_changed_already() -> None:
    (ring,) = attached(SHAPE)
    ring.words[Word.PUBLISHED] = 5
    begun = time.monotonic()
    wait_for_change(ring.words, Word.PUBLISHED, 4, 30.0)
    assert time.monotonic() - begun < 10


def test_waiting_ends_after_its_time() -> None:
    (ring,) = attached(SHAPE)
    begun = time.monotonic()
    wait_for_change(ring.words, Word.PUBLISHED, 0, 0.05)
    assert 0.04 < time.monotonic() - begun < 10


@pytest.mark.parametrize("count", [0, 2**32 - 1, 2**40])
def test_a_waiting_thread_is_woken_through_another_mapping(count: int) -> None:
    """The counts pass 32 bits, of which the kernel compares the low half."""
    ours, theirs = attached(SHAPE, 2)
    ours.words[Word.PUBLISHED] = count
    woken = threading.Event()

    def wait() -> None:
        while theirs.words[Word.PUBLISHED] == count:
            wait_for_change(theirs.words, Word.PUBLISHED, count, 60.0)
        woken.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert not woken.is_set()
    ours.words[Word.PUBLISHED] = count + 1
    wake_up(ours.words, Word.PUBLISHED)
    assert woken.wait(20)
    thread.join()
