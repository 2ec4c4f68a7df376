"""How large the image ring of a config becomes, and whether there is memory for it."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from daq_core.errors import Unavailable
from daq_core.linux.memory import Memory, shown_bytes
from daq_core.ring.ring import RingShape, choose_n_slots
from daq_core.writing.gain_maps import maps_bytes

if TYPE_CHECKING:
    from daq_core.config import DaqConfig


def choose_ring(config: DaqConfig, memory: Memory, *, returned_bytes: int = 0) -> RingShape:
    """Choose the ring of a config, so that enough memory is left to everything else.

    Parameters
    ----------
    returned_bytes : of the ring and the maps that this one takes the place of; what is not larger
        than they are is never refused

    Raises
    ------
    Unavailable
        There is not so much memory; the text says how much there is, whose limit that is, and what to set.
    """
    layout = config.layout
    free = memory.free_bytes + returned_bytes
    maps = maps_bytes(layout.image_shape[0] * layout.image_shape[1]) if layout.is_converted else 0
    most = free - memory.reserve_bytes - maps
    n_slots = choose_n_slots(
        layout.room_bytes,
        config.ram_buffer_gb,
        max(0, min(free, 4 * most)),  # a quarter of it is the default
        n_modules=len(layout.modules),
        n_units=layout.n_units,
    )
    shape = layout.ring_shape(n_slots)
    if shape.total_bytes > max(most, returned_bytes - maps):
        raise Unavailable(_refusal(shape, Memory(free, memory.limit_bytes, memory.group), most, maps))
    return shape


def _refusal(shape: RingShape, memory: Memory, most: int, maps: int) -> str:
    kept = f"{shown_bytes(memory.reserve_bytes)} of it are kept for everything else"
    if maps:
        kept += f", {shown_bytes(maps)} for the maps of gain and pedestal"
    text = f"No memory for an image ring of {shown_bytes(shape.total_bytes)}: {memory}, and {kept}."
    if shape.n_slots <= 8:
        return f"{text} It is the smallest there is, of 8 images: give the service more memory."
    fitting = floor(max(0, most) / 2**30 * 100) / 100
    return f"{text} Set ram_buffer_gb in the config to {fitting:g} at most; 0 chooses."
