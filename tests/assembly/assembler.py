"""Drives the compiled assembly without sockets: datagrams in, images in a real ring out.

What the receive loop does in one turn, in steps that a test calls one by one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types

from daq_core.assembling.arms import begin_reading, forget_arms, note_batch
from daq_core.assembling.gate import new_crew
from daq_core.assembling.local import Local
from daq_core.assembling.orders import end_run, take_orders
from daq_core.assembling.placing import Kernels, kernels_of
from daq_core.assembling.publication import publish_ready
from daq_core.assembling.signatures import (
    ASSEMBLY_TYPE,
    BATCH_TYPE,
    CLOCK_TYPE,
    ERASE,
    LAYOUT_TYPE,
    PORT_TYPE,
    PUT,
    RING_TYPE,
    TAKE,
    Assembly,
    Batch,
    Clock,
    Port,
)
from daq_core.assembling.verdicts import judge, look_for_next_frame
from daq_core.config import DaqConfig
from daq_core.detectors import format_of, layout_of
from daq_core.kernels.compiling import JIT, kernel_of
from daq_core.kernels.loading import load_kernels
from daq_core.linux.sockets import MESSAGE_LENGTH, DatagramBatch
from daq_core.receiving.loop import place
from daq_core.receiving.packets import new_local
from daq_core.ring.ring import SKIPPED, Ring
from daq_core.ring.words import WRITER_WORDS, Arm, Word
from tests.oracle.assembly import ReferenceAssembly

BATCH = 64
EMPTY = 0x5A

_words = types.int64[::1]


@kernel_of(types.int64(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE))
def _take_orders(erase: Any, layout: Any, assembly: Any) -> int:
    return take_orders(assembly, layout, erase)


@kernel_of(types.void(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE, types.int64))
def _end_run(erase: Any, layout: Any, assembly: Any, epoch: int) -> None:
    end_run(assembly, layout, erase, epoch)


@kernel_of(types.void(types.FunctionType(ERASE), LAYOUT_TYPE, ASSEMBLY_TYPE, types.int64))
def _publish_ready(erase: Any, layout: Any, assembly: Any, now: int) -> None:
    publish_ready(assembly, layout, erase, now)


@kernel_of(
    types.void(
        types.FunctionType(TAKE),
        types.FunctionType(PUT),
        types.FunctionType(ERASE),
        BATCH_TYPE,
        types.int64,
        PORT_TYPE,
        CLOCK_TYPE,
        ASSEMBLY_TYPE,
        _words,
    )
)
def _place_all(
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
    arms, size = assembly.ring.arms, batch.messages.shape[0]
    begin_reading(arms, port.number, clock.now)
    note_batch(arms, port.number, n, size, clock.now)
    place(take, put, erase, batch, n, port, clock, assembly, crew)


@kernel_of(types.void(RING_TYPE, _words, types.int64[:, ::1], types.int64, types.int64, types.int64))
def _look_and_judge(ring: Any, local: Any, taken: Any, n: int, port: int, now: int) -> None:
    look_for_next_frame(ring, local, taken, n, port, True, now)
    judge(ring)


load_kernels()

N_WRITERS = 3
SIGNATURES = (TAKE, PUT, ERASE)


class Known(types.WrapperAddressProtocol):
    """A compiled kernel whose address is found once: numba looks for it at each call, ten times as long."""

    def __init__(self, compiled: Any, signature: Any) -> None:
        self._numba_type_ = types.FunctionType(signature)
        self._signature = signature
        found = compiled.get_compile_result(signature)
        self._address = found.library.get_pointer_to_function(found.fndesc.llvm_cfunc_wrapper_name)

    def __wrapper_address__(self) -> int:
        return int(self._address)

    def signature(self) -> Any:
        return self._signature


def handed_over(kernel: Any, signature: Any) -> Any:
    """Return what is given to a kernel that calls this one."""
    return Known(kernel, signature) if JIT else kernel


class Assembler:
    """One config's ring and kernels, and the orders that control and writer give in the ring's words."""

    def __init__(self, config: DaqConfig, n_slots: int, *, id_source: str = "frame") -> None:
        self.config = config
        self.layout = layout_of(config)
        self.form, self.kernels = (
            format_of(config),
            Kernels(*map(handed_over, kernels_of(config), SIGNATURES)),
        )
        shape = self.layout.ring_shape(n_slots)
        descriptor = shape.create()
        try:
            self.ring: Ring = shape.attach(descriptor)
        finally:
            os.close(descriptor)
        self.words = self.ring.words
        self.ring.pixels[:, self.layout.room_bytes :] = EMPTY  # between two slots: nobody's
        self.local = new_local(config, self.layout, id_source, n_slots)
        forget_arms(self.ring, self.local, self.layout)
        self._batch = DatagramBatch(BATCH, self.layout.datagram_bytes)
        self._taken = np.zeros((BATCH, 2), np.int64)
        self.assembly = Assembly(self.ring, self.local)
        self._crew = new_crew(1)
        self._last_read = [0] * len(self.layout.ports)

    def reference(self, id_source: str = "frame") -> ReferenceAssembly:
        """Return the reference that has to agree with this."""
        return ReferenceAssembly(
            dict(self.config.module_positions),
            detector=self.form.name,
            bit_depth=self.config.bit_depth,
            image_shape=self.layout.image_shape,
            n_slots=len(self.ring.slots),
            window=int(self.local[Local.WINDOW]),
            timeout=int(self.local[Local.TIMEOUT_NS]),
            drop_incomplete=self.config.incomplete_images == "drop",
            id_source=id_source,
        )

    # ---- what the control process does

    def ask_for_run(self, n_images: int = 0) -> None:
        self.words[Word.N_IMAGES] = n_images
        self.words[Word.EPOCH] += 1
        assert self.words[Word.EPOCH] % 2 == 1

    def ask_for_end(self) -> None:
        self.words[Word.EPOCH] += 1
        assert self.words[Word.EPOCH] % 2 == 0

    def arm(self, n_images: int = 0) -> None:
        """Begin a run, and let the loop look."""
        self.ask_for_run(n_images)
        self.take_orders()

    def disarm(self) -> None:
        """End the run, and let the loop look, with nothing in the sockets."""
        self.ask_for_end()
        self.end_run(self.take_orders())

    # ---- what the writer does

    def consume(self, sequence: int) -> None:
        """Let the slowest of several writers, each time another one, be that far; the others are done."""
        self.words[Word.N_WRITERS] = N_WRITERS
        for writer in range(N_WRITERS):
            slowest = writer == sequence % N_WRITERS
            done = sequence if slowest else max(sequence, self.n_published)
            self.words[Word.CONSUMED + writer * WRITER_WORDS] = done

    def end_writer(self) -> None:
        self.words[Word.WRITER_DONE] = self.words[Word.EPOCH] - 1

    # ---- what the receive loop does

    def take_orders(self) -> int:
        """Look for orders; returns the epoch of an end that is to come when the sockets are read, or 0."""
        return int(_take_orders(self.kernels.erase, self.layout.ports, self.assembly))

    def end_run(self, epoch: int) -> None:
        """End a run whose sockets are read; 0: none is waiting to."""
        if epoch:
            _end_run(self.kernels.erase, self.layout.ports, self.assembly, epoch)

    def receive(self, module: int, datagrams: list[bytes], now: int = 0) -> None:
        """Let datagrams arrive at the port of a module, as recvmmsg leaves them."""
        self.receive_at(self.layout.modules.index(module), datagrams, now)

    def receive_at(self, port: int, datagrams: list[bytes], now: int = 0) -> None:
        """Let datagrams arrive at a port, by its place in the layout.

        The loop has found the socket empty since it read from it, right after that and right before now.
        """
        self.read(port, [], self._last_read[port])
        self.read(port, [], now)
        self._last_read[port] = now
        for first in range(0, len(datagrams), BATCH):
            self.read(port, datagrams[first : first + BATCH], now)

    def read(self, port: int, datagrams: list[bytes], now: int) -> None:
        """Read a port once, as one turn of the loop does: the datagrams of one call, or none."""
        self._batch.datagrams[: len(datagrams) * self._batch.stride] = 0xFF
        for i, sent in enumerate(datagrams):
            cut = sent[: self.layout.datagram_bytes + 8]  # what the kernel cuts off
            at = i * self._batch.stride
            self._batch.datagrams[at : at + len(cut)] = np.frombuffer(cut, np.uint8)
            self._batch.messages[i, MESSAGE_LENGTH] = len(cut)
        _place_all(
            *self.kernels,
            Batch(self._batch.datagrams, self._batch.stride, self._batch.messages, self._taken),
            len(datagrams),
            Port(self.layout.ports, port),
            Clock(now, now),
            self.assembly,
            self._crew,
        )

    def publish_ready(self, now: int = 0) -> None:
        _publish_ready(self.kernels.erase, self.layout.ports, self.assembly, now)

    def read_to_its_end(self, port: int, datagrams: list[bytes], now: int) -> bool:
        """Let a port bring all it has, after the end of a run; returns whether that is judged then."""
        self.receive_at(port, datagrams, now)
        _look_and_judge(self.ring, self.local, self._taken, len(datagrams), port, now)
        return bool(self.words[Word.RUN_JUDGED] == self.words[Word.RUN_EPOCH])

    # ---- what a reader of the ring sees

    @property
    def n_published(self) -> int:
        return int(self.words[Word.PUBLISHED])

    def image(self, sequence: int) -> Any:
        """Return the pixels of a published image, (H, W)."""
        return self.memory(sequence % len(self.ring.slots))

    def memory(self, slot: int) -> Any:
        """Return the pixels that are in a slot, (H, W)."""
        n_bytes = self.layout.room_bytes - self.layout.edge_bytes
        pixels = self.ring.pixels[slot, :n_bytes]
        return pixels.view(self.layout.ring_dtype).reshape(self.layout.image_shape)

    def slot(self, sequence: int) -> Any:
        return self.ring.slots[sequence % len(self.ring.slots)]

    def run_images(self) -> list[int]:
        """Return the sequence numbers of the images that the writer would put into the file."""
        end = min(self.n_published, int(self.words[Word.RUN_END]))
        first = max(int(self.words[Word.RUN_FIRST]), int(self.words[Word.OPENED]) - len(self.ring.slots))
        return [s for s in range(first, end) if self.slot(s).state != SKIPPED]

    def count(self, *names: str) -> dict[str, int]:
        """Return counters by the names of their words."""
        return {name: int(self.words[getattr(Word, name)]) for name in names}


def assert_agreement(assembler: Assembler, reference: ReferenceAssembly) -> None:
    """Compare everything a ring says, and every image that is still in it, with the reference."""
    counted = assembler.count("RECEIVED", "PLACED", "DUPLICATE", "LATE", "MALFORMED", "UNPLACED")
    counted |= assembler.count(
        "IMAGES_PUBLISHED", "INCOMPLETE_IMAGES", "MISSING", "DROPPED_IMAGES", "RESTARTS"
    )
    n_held = reference.arms.n_held
    expected = {name: reference.count[name.lower()] for name in counted}
    assert counted == expected | {name: expected[name] - n_held for name in ("RECEIVED", "PLACED")}
    assert counted["RECEIVED"] == sum(
        counted[name] for name in ("PLACED", "DUPLICATE", "LATE", "MALFORMED", "UNPLACED")
    )
    of_run = assembler.count("RUN_KEPT", "RUN_DROPPED", "RUN_INCOMPLETE", "RUN_MISSING", "RUN_MISMATCHED")
    of_run |= assembler.count("RUN_SPARSE", "RUN_NOT_GOOD", "RUN_OTHER_FORMAT")
    assert of_run == {name: reference.run[name.removeprefix("RUN_").lower()] for name in of_run}
    ports = [reference.arms.ports[module] for module in assembler.layout.modules]
    arms = assembler.ring.arms
    assert arms[:, Arm.ARM].tolist() == [port.arm for port in ports]
    assert arms[:, Arm.DOUBT].astype(bool).tolist() == [port.doubt is not None for port in ports]
    assert assembler.words[Word.OPENED] == len(reference.images)
    assert assembler.n_published == reference.n_published

    in_memory = max(0, len(reference.images) - len(assembler.ring.slots))
    for sequence in range(in_memory, reference.n_published):
        image, slot = reference.images[sequence], assembler.slot(sequence)
        assert (slot.state == SKIPPED) >= (image.abandoned or image.cut)
        if image.abandoned:
            continue
        seen = (int(slot.frame), int(slot.image_id), int(slot.n_missing), int(slot.status))
        assert seen == (image.frame, image.image_id, image.n_missing, image.status)
        np.testing.assert_array_equal(assembler.image(sequence), image.pixels)
    kept = [s for s in range(in_memory, reference.n_published) if reference.images[s].kept]
    assert [s for s in assembler.run_images() if s >= in_memory] == [
        s for s in kept if s >= reference.run_from
    ]
    assert (assembler.ring.pixels[:, assembler.layout.room_bytes :] == EMPTY).all()
