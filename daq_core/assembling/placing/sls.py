"""Places the packets of the SLS detectors; their header and its source are in ``detectors.sls``."""

from __future__ import annotations

from typing import Any

import numpy as np

from daq_core.assembling.assembly import NO_ROOM
from daq_core.assembling.claims import claim
from daq_core.assembling.local import Local
from daq_core.assembling.placing.strangers import ODD, note_header, note_length, note_number
from daq_core.assembling.placing.twelve_bit import erase_12_bit, put_12_bit, row_bytes
from daq_core.assembling.signatures import ERASE, PUT, TAKE, Packet
from daq_core.assembling.verdicts import convict
from daq_core.detectors.sls import HEADER_BYTES
from daq_core.kernels.compiling import kernel, kernel_of
from daq_core.kernels.strips import (
    copy_strip,
    expect_strip,
    mirror_strip_1,
    mirror_strip_2,
    mirror_strip_4,
    unpack_4,
    unpack_4_mirrored,
)
from daq_core.linux.sockets import MESSAGE_LENGTH
from daq_core.ring.words import Word

ID_FRAME, ID_BUNCH_DOUBLE, ID_BUNCH_INTEGER = range(3)


@kernel
def put_packet(source: Any, at: int, layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Copy one packet's pixels into an image, or unpack those of 4 bit.

    Parameters
    ----------
    source : (bytes,) uint8        holds the payload from byte `at` on
    packet : int                   number within the port's part of the image, from 0
    pixels : (image bytes,) uint8  the assembled image
    """
    here = layout[port]
    item = here.item_bytes
    n, seam, gap = row_bytes(here)
    n_wire = (n - gap) // 2 if here.packing == 4 else n - gap
    lowest = (here.first_pixel + packet * here.rows * here.row_step) * item
    if here.column_step < 0:
        lowest -= n - item
    step = here.row_step * item
    for _ in range(here.rows):
        expect_strip(pixels, lowest + here.rows * step, n)  # the same row of the next packet
        if here.column_step < 0:
            _put_mirrored(pixels, lowest, source, at, n, seam, gap, here.packing, item)
        elif here.packing == 4:
            unpack_4(pixels, lowest, source, at, n, seam, gap)
        else:
            copy_strip(pixels, lowest, source, at, n, seam, gap)
        at += n_wire
        lowest += step


@kernel
def _put_mirrored(
    pixels: Any, lowest: int, source: Any, at: int, n: int, seam: int, gap: int, packing: int, item: int
) -> None:
    if packing == 4:
        unpack_4_mirrored(pixels, lowest, source, at, n, seam, gap)
    elif item == 1:
        mirror_strip_1(pixels, lowest, source, at, n, seam, gap)
    elif item == 2:
        mirror_strip_2(pixels, lowest, source, at, n, seam, gap)
    else:
        mirror_strip_4(pixels, lowest, source, at, n, seam, gap)


@kernel_of(ERASE)
def erase(layout: Any, port: int, packet: int, pixels: Any) -> None:
    """Zero the pixels of a packet that did not arrive."""
    here = layout[port]
    if here.packing == 12:
        erase_12_bit(layout, port, packet, pixels)
        return
    n_bytes = here.segment_pixels * here.item_bytes
    row = here.first_pixel + packet * here.rows * here.row_step
    for _ in range(here.rows):
        first = row
        for _ in range(here.segments):
            lowest = first if here.column_step == 1 else first - here.segment_pixels + 1
            start = lowest * here.item_bytes
            pixels[start : start + n_bytes] = 0
            first += here.segment_step
        row += here.row_step


@kernel_of(TAKE)
def take(batch: Any, first: int, n: int, port: Any, clock: Any, assembly: Any) -> int:
    """Find the image of each received packet, and mark the packet there.

    Parameters
    ----------
    batch, port, clock, assembly : as in ``daq_core.assembling.signatures``
    first, n : int  the new datagrams are first .. n-1; their rows of `taken` are filled

    Returns
    -------
    int  n, or the number of the datagram whose image needs room: the window of open
         images is full, and the caller has to give up the oldest before it goes on here
    """
    ring, local, taken = assembly.ring, assembly.local, batch.taken
    here = port.layout[port.number]
    datagrams, stride, messages = batch.datagrams, batch.stride, batch.messages
    headers = datagrams.view(np.uint64)
    bunch_ids = datagrams.view(np.float64)
    # Not read again for each packet: for all that the compiler knows, placing might change the layout.
    datagram_bytes, first_packet, first_unit, n_units = (
        here.datagram_bytes,
        here.first_packet,
        here.first_unit,
        here.n_units,
    )
    mask, identity = here.header_mask, here.header_value
    slot = -1
    n_placed = n_odd = 0
    for i in range(first, n):
        at = i * stride
        word = at >> 3
        taken[i, 0] = -1
        packet = np.int64(headers[word + 1] >> np.uint64(32)) - first_packet
        said = headers[word + 5] & mask
        if (
            messages[i, MESSAGE_LENGTH] != datagram_bytes
            or packet < 0
            or packet >= n_units
            or not (said == identity or _is_left_out(said, identity))
        ):
            taken[i, 0] = ODD
            n_odd += 1
            continue
        frame = headers[word]
        image_id = frame
        if local[Local.ID_SOURCE] == ID_BUNCH_INTEGER:
            image_id = headers[word + 2]
        elif local[Local.ID_SOURCE] == ID_BUNCH_DOUBLE:
            if not 0.0 <= bunch_ids[word + 2] < 9.2e18:
                ring.words[Word.MALFORMED] += 1
                continue
            image_id = np.uint64(bunch_ids[word + 2])
        said_so = Packet(port.number, frame, image_id, first_unit + packet, 1)
        claimed = claim(assembly, said_so, slot, clock)
        if claimed == NO_ROOM:
            n = i
            break
        if claimed >= 0:
            slot = claimed
            taken[i, 0], taken[i, 1] = slot, local[Local.CLAIMED]
            n_placed += 1
    if n_odd > 0:
        _look_at_odd(batch, first, n, port, assembly)
    ring.module_packets[here.module_index] += n_placed
    ring.words[Word.RECEIVED] += n - first
    ring.words[Word.PLACED] += n_placed
    return n


@kernel
def _is_left_out(said: Any, identity: Any) -> bool:
    """Tell whether a header that is not as it should be is so because its sender leaves bytes of it at 0."""
    kind, version = said >> np.uint64(48) & np.uint64(0xFF), said >> np.uint64(56)
    is_kind = kind == np.uint64(0) or kind == identity >> np.uint64(48) & np.uint64(0xFF)
    return bool(is_kind and (version == np.uint64(0) or version == identity >> np.uint64(56)))


@kernel
def _look_at_odd(batch: Any, first: int, n: int, port: Any, assembly: Any) -> None:
    """Say what is wrong with each ODD datagram of a batch; in the loop it would cost all others time."""
    ring, number = assembly.ring, port.number
    here = port.layout[number]
    headers = batch.datagrams.view(np.uint64)
    for i in range(first, n):
        if batch.taken[i, 0] == ODD:
            word = (i * batch.stride) >> 3
            said = headers[word + 5] & here.header_mask
            if batch.messages[i, MESSAGE_LENGTH] != here.datagram_bytes:
                note_length(ring, number, batch.messages[i, MESSAGE_LENGTH])
            elif said != here.header_value and not _is_left_out(said, here.header_value):
                note_header(ring, number, np.int64(said >> np.uint64(48)))
            else:
                note_number(ring, number, np.int64(headers[word + 1] >> np.uint64(32)))
                convict(ring, assembly.local, number, headers[word])


@kernel_of(PUT)
def put(batch: Any, first: int, n: int, port: Any, ring: Any) -> None:
    """Copy the pixels of taken packets to their final place; parameters as in :func:`take`."""
    layout, number, datagrams = port.layout, port.number, batch.datagrams
    here = layout[number]
    headers = datagrams.view(np.uint64)
    for i in range(first, n):
        slot = batch.taken[i, 0]
        if slot >= 0:
            at = i * batch.stride
            packet = np.int64(headers[(at >> 3) + 1] >> np.uint64(32)) - here.first_packet
            if here.packing == 12:
                put_12_bit(datagrams, at + HEADER_BYTES, layout, number, packet, ring, slot)
            else:
                put_packet(datagrams, at + HEADER_BYTES, layout, number, packet, ring.pixels[slot])
