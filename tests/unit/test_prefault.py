"""A ring has its first pages when the receiver listens, all of them soon after, and nothing in it changes."""

from __future__ import annotations

import os

import pytest

from daq_core.ring import prefault
from daq_core.ring.ring import RingShape

SHAPE = RingShape(n_slots=24, n_modules=1, n_units=128, room_bytes=2**20 - 100)


@pytest.fixture(params=["madvise", "an older kernel, without"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "madvise":
        monkeypatch.setattr(prefault, "MADV_POPULATE_WRITE", 9999)


@pytest.mark.usefixtures("_kernel")
def test_the_first_slots_have_pages_at_once_and_the_others_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefault, "FIRST_BYTES", 2 * SHAPE.slot_bytes)
    monkeypatch.setattr(prefault, "STEP_BYTES", 5 * SHAPE.slot_bytes)
    descriptor = SHAPE.create()
    try:
        ring = SHAPE.attach(descriptor)
        assert _bytes_had(descriptor) == 0
        ring.pixels[3, 5] = 77
        rest = prefault.prefault(ring)
        assert _bytes_had(descriptor) >= 2 * SHAPE.slot_bytes
        rest.start()
        rest.join(60)
        assert _bytes_had(descriptor) == SHAPE.total_bytes
        assert ring.pixels[3, 5] == 77
        assert ring.pixels.sum() == 77
    finally:
        os.close(descriptor)


def test_a_ring_that_is_small_needs_no_more_than_the_first_step() -> None:
    shape = RingShape(n_slots=8, n_modules=3, n_units=100, room_bytes=5000)
    descriptor = shape.create()
    try:
        prefault.prefault(shape.attach(descriptor))
        assert _bytes_had(descriptor) == shape.total_bytes
    finally:
        os.close(descriptor)


def _bytes_had(descriptor: int) -> int:
    """Return how much of a memfd has pages (stat(2): st_blocks counts 512 bytes)."""
    return os.fstat(descriptor).st_blocks * 512
