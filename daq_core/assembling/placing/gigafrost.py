"""Places the packets of a GigaFRoST; their header and its source are in ``detectors.gigafrost``."""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import NO_ROOM
from daq_core.assembling.claims import claim
from daq_core.assembling.local import Local
from daq_core.assembling.placing.strangers import note_header, note_length, note_number
from daq_core.assembling.signatures import ERASE, PUT, TAKE, Packet
from daq_core.assembling.verdicts import convict
from daq_core.detectors.gigafrost import DO_NOT_STORE, HEADER_BYTES, ROWS_MASK
from daq_core.kernels.compiling import kernel, kernel_of
from daq_core.kernels.strips import expect_strip, unpack_12
from daq_core.linux.sockets import MESSAGE_LENGTH
from daq_core.ring.ring import UNWANTED
from daq_core.ring.words import Word


@kernel
def put_rows(source: Any, at: int, layout: Any, port: int, row: Any, n_rows: Any, pixels: Any) -> None:
    """Unpack rows of a link's frame to their place.

    Parameters
    ----------
    source : (bytes,) uint8        holds the rows from byte `at` on
    row, n_rows : int              the first, within the link's frame, and how many
    pixels : (image bytes,) uint8  the assembled image
    """
    here = layout[port]
    n = here.segment_pixels * 2
    for k in range(n_rows):
        target = here.first_pixel + (row + k) * here.row_step
        expect_strip(pixels, (target + n_rows * here.row_step) * 2, n)  # a row of the next packet
        unpack_12(pixels, target * 2, source, at, n, n, 0)
        at += here.segment_pixels * 3 // 2


@kernel_of(ERASE)
def erase(layout: Any, port: int, row: int, pixels: Any) -> None:
    """Zero a row of a link's frame that did not arrive."""
    here = layout[port]
    start = (here.first_pixel + row * here.row_step) * 2
    pixels[start : start + here.segment_pixels * 2] = 0


@kernel_of(TAKE)
def take(batch: Any, first: int, n: int, port: Any, clock: Any, assembly: Any) -> int:
    """Find the image of received datagrams; parameters and result as in ``sls.take``.

    The rows of a datagram follow from its length: padding is less than a row. How many
    the sender was seen to put into a full datagram is kept, to count missing packets by,
    those of silent links too.
    """
    ring, local, taken = assembly.ring, assembly.local, batch.taken
    here = port.layout[port.number]
    datagrams, stride, messages = batch.datagrams, batch.stride, batch.messages
    headers = datagrams.view(np.uint64)
    words = datagrams.view(np.uint32)
    halves = datagrams.view(np.uint16)
    row_bytes = here.segment_pixels * 3 // 2
    slot = -1
    n_placed = 0
    for i in range(first, n):
        at = i * stride
        taken[i, 0] = -1
        row = np.int64(halves[(at >> 1) + 7])
        n_rows = (np.int64(messages[i, MESSAGE_LENGTH]) - HEADER_BYTES) // row_bytes
        frame = np.uint64(words[(at >> 2) + 2])
        if (
            n_rows < 1
            or messages[i, MESSAGE_LENGTH] > here.datagram_bytes
            or row >= here.n_units
            or (headers[at >> 3] & here.header_mask) != here.header_value
        ) and not _is_acceptable(
            assembly, port, frame, row, headers[at >> 3], n_rows, messages[i, MESSAGE_LENGTH]
        ):
            continue
        n_rows = min(n_rows, here.n_units - row)
        if row == 0 or row + n_rows < here.n_units:
            local[Local.UNITS_PER_PACKET] = n_rows
        said_so = Packet(port.number, frame, frame, here.first_unit + row, n_rows)
        claimed = claim(assembly, said_so, slot, clock)
        if claimed == NO_ROOM:
            n = i
            break
        if claimed < 0:
            continue
        slot = claimed
        if halves[(at >> 1) + 6] & DO_NOT_STORE:
            ring.slots[slot].unwanted = UNWANTED
        taken[i, 0], taken[i, 1] = slot, local[Local.CLAIMED]
        n_placed += 1
    ring.module_packets[here.module_index] += n_placed
    ring.words[Word.RECEIVED] += n - first
    ring.words[Word.PLACED] += n_placed
    return n


@kernel
def _is_acceptable(
    assembly: Any, port: Any, frame: Any, row: Any, word: Any, n_rows: Any, length: Any
) -> bool:
    """Say what is wrong with a datagram; nothing is where its sender leaves the rows of a quadrant at 0."""
    ring, number = assembly.ring, port.number
    here = port.layout[number]
    said = word & here.header_mask
    if n_rows < 1 or length > here.datagram_bytes:
        note_length(ring, number, length)
    elif said != here.header_value and said != here.header_value & ~np.uint64(ROWS_MASK):
        note_header(ring, number, np.int64(said))
    elif row >= here.n_units:
        note_number(ring, number, row)
        convict(ring, assembly.local, number, frame)
    else:
        return True
    return False


@kernel_of(PUT)
def put(batch: Any, first: int, n: int, port: Any, ring: Any) -> None:
    """Unpack what was taken to its final place; parameters as in ``sls.put``."""
    layout, number = port.layout, port.number
    here = layout[number]
    datagrams, taken = batch.datagrams, batch.taken
    halves = datagrams.view(np.uint16)
    row_bytes = here.segment_pixels * 3 // 2
    for i in range(first, n):
        if taken[i, 0] >= 0:
            at = i * batch.stride
            row = np.int64(halves[(at >> 1) + 7])
            n_rows = (np.int64(batch.messages[i, MESSAGE_LENGTH]) - HEADER_BYTES) // row_bytes
            n_rows = min(n_rows, here.n_units - row)
            put_rows(datagrams, at + HEADER_BYTES, layout, number, row, n_rows, ring.pixels[taken[i, 0]])
