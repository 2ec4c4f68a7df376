"""The PVs of every asyn port with images, one line each: what ADCore calls NDArrayBase.

``cam1:`` and ``HDF1:`` have the same. The image has two dimensions of areaDetector's ten; its pool of
arrays is the image ring, which the two share. What is not known is not shown: such a PV stays undefined.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ioc.commands.area_detector import AreaDetector
from ioc.pvs.area_kinds import Prefix, choices, fixed, kept, on_area, pixels
from ioc.pvs.area_view import data_type
from ioc.pvs.row import Row, Source, action, count, enum, integers, number, pair, string
from ioc.pvs.view import View

ENABLED = "Disable|Enable"
TYPES = "Int8|UInt8|Int16|UInt16|Int32|UInt32|Int64|UInt64|Float32|Float64"
COLORS = "Mono|Bayer|RGB1|RGB2|RGB3|YUV444|YUV422|YUV421"
BAYER = "RGGB|GBRG|GRBG|BGGR"
ATTRIBUTES = "Attributes file OK|File not found:MINOR|XML syntax error:MAJOR|Macro substitution error:MAJOR"
PATH, NAME = 1024, 256  # bytes of a text, its end included
MAX_DIMENSIONS = 10
ADCORE = "3.12.1"  # version of ADCore whose names these are
EPICS_EPOCH = 631_152_000  # 1990-01-01, Unix seconds
MB = 2**20  # as ADCore counts them


def sizes(v: View) -> tuple[int, int]:
    """Return the image's dimensions, as areaDetector orders them."""
    return v.config.image_pixel_width, v.config.image_pixel_height


def width(v: View) -> int:
    return v.config.image_pixel_width


def height(v: View) -> int:
    return v.config.image_pixel_height


def none(v: View) -> int:
    return 0


def array(macro: Prefix, port: str) -> tuple[Row, ...]:
    """Make the PVs of an asyn port with images."""
    put_counter = on_area(lambda area, value, client: area.put_array_counter(macro, value, client))
    counter = Row("ArrayCounter", "longout", "Images since it was put", counter_put(macro), put_counter)
    return (
        string("PortName_RBV", lambda v: port, "Name of this part", macro=macro),
        string("ADCoreVersion_RBV", lambda v: ADCORE, "Version of the interface", macro=macro),
        string("DriverVersion_RBV", lambda v: v.ioc.version, "Version of the IOC", macro=macro),
        count("UniqueId_RBV", unique_id, "Newest image, 31 bit", macro=macro),
        *pair(replace(counter, macro=macro), value=counted(macro), needs_receiver=True),
        kept(macro, "waveform", "NDAttributesFile", "", "Kept, has no effect", nelm=PATH)[0],
        kept(macro, "waveform", "NDAttributesMacros", "", "Kept, has no effect", nelm=NAME)[0],
        enum("NDAttributesStatus", ATTRIBUTES, attributes(macro), "A file is not read", macro=macro),
        pixels(macro, "ArraySizeX_RBV", width, "Columns of the image"),
        pixels(macro, "ArraySizeY_RBV", height, "Rows of the image"),
        pixels(macro, "ArraySizeZ_RBV", none, "Not used"),
        *(row for n in range(MAX_DIMENSIONS) for row in dimension_rows(macro, n)),
        dimensions(macro, "Dimensions_RBV"),
        dimensions(macro, "Dimensions"),
        count("ArraySize_RBV", lambda v: v.layout.image_bytes, "Of an image", egu="B", macro=macro),
        string("Codec_RBV", lambda v: "", "Empty: arrays are not compressed", macro=macro),
        count("CompressedSize_RBV", lambda v: v.layout.image_bytes, "Of an image", egu="B", macro=macro),
        *fixed(macro, "mbbo", "DataType", data_type, "By bit_depth", **choices(TYPES)),
        *fixed(macro, "mbbo", "ColorMode", lambda v: "Mono", "Always Mono", **choices(COLORS)),
        enum("BayerPattern_RBV", BAYER, lambda v: None, "Not known: the image is Mono", macro=macro),
        *fixed(macro, "longout", "NDimensions", lambda v: 2, "Of an image"),
        number("TimeStamp_RBV", "s", 6, image_time, "Newest image, Unix seconds", macro=macro),
        count("EpicsTSSec_RBV", epics_seconds, "Newest image, seconds since 1990", macro=macro),
        count("EpicsTSNsec_RBV", nanoseconds, "And nanoseconds", egu="ns", macro=macro),
        ring(macro, number("ArrayRate_RBV", "Hz", 2, rate, "Images while Acquire is on")),
        *kept(macro, "bo", "ArrayCallbacks", "Enable", "Kept", **choices(ENABLED)),
        count("AsynIO", none, "Always 0: there is no asyn here", macro=macro),
        *pool(macro),
    )


def dimension_rows(macro: Prefix, n: int) -> tuple[Row, ...]:
    """Make what areaDetector has of each dimension: a number, and an array of one; 0 where there is none."""
    what = ("Columns of the image", "Rows of the image", "Not used")[min(n, 2)]

    def size(v: View) -> int:
        return (*sizes(v), *[0] * MAX_DIMENSIONS)[n]

    def alone(v: View) -> tuple[int]:
        return (size(v),)

    return (
        pixels(macro, f"ArraySize{n}_RBV", size, what),
        pixels(macro, f"ArraySize{n}", size, what),
        replace(integers(f"Dim{n}SA_RBV", 1, "px", alone, what), macro=macro),
        replace(integers(f"Dim{n}SA", 1, "px", alone, what), macro=macro),
    )


def dimensions(macro: Prefix, pv: str) -> Row:
    return replace(integers(pv, MAX_DIMENSIONS, "px", sizes, "Columns and rows of the image"), macro=macro)


def pool(macro: Prefix) -> tuple[Row, ...]:
    """Make the PVs of the pool of arrays, which is the image ring."""
    return (
        ring(macro, number("PoolMaxMem", "MB", 1, memory(all_slots), "Of the image ring")),
        ring(macro, number("PoolUsedMem", "MB", 1, memory(used_slots), "Of images in the ring")),
        ring(macro, count("PoolMaxBuffers", all_slots, "Slots of the image ring")),
        ring(macro, count("PoolAllocBuffers", all_slots, "Slots of the image ring")),
        ring(macro, count("PoolFreeBuffers", free_slots, "Free slots of the image ring")),
        ring(macro, number("PoolUsedBuffers", "", 0, used_slots, "Slots with images")),
        ring(macro, count("NumQueuedArrays", used_slots, "Images in the ring")),
        action(macro, "EmptyFreeList", on_area(AreaDetector.have_no_effect), "No effect: the ring stays"),
    )


def ring(macro: Prefix, row: Row, **more: Any) -> Row:
    """Make a PV of what the receiver counts."""
    return replace(row, macro=macro, needs_receiver=True, **more)


def all_slots(v: View) -> int:
    return v.counters.ring_slots


def used_slots(v: View) -> int:
    return v.counters.ring_used


def free_slots(v: View) -> int:
    return v.counters.ring_slots - v.counters.ring_used


def memory(n_slots: Source) -> Source:
    return lambda v: n_slots(v) * v.layout.image_bytes / MB


def attributes(macro: Prefix) -> Source:
    """Return what shows the state of the attributes' file: no file is fine, of another nothing is known."""
    return lambda v: None if v.area.kept.get(f"{macro}:NDAttributesFile") else "Attributes file OK"


def counter_put(macro: Prefix) -> Source:
    return lambda v: v.area.counted_from.get(macro, (0, 0))[0]


def counted(macro: Prefix) -> Source:
    return lambda v: v.area.array_counter(macro)


def rate(v: View) -> float:
    return v.area.passed_per_second


def unique_id(v: View) -> int | None:
    newest = v.area.newest.newest_id
    return None if newest is None else newest % 2**31


def image_time(v: View) -> float | None:
    return v.area.newest.newest_time


def epics_seconds(v: View) -> int | None:
    newest = v.area.newest.newest_time
    return None if newest is None else int(newest) - EPICS_EPOCH


def nanoseconds(v: View) -> int | None:
    newest = v.area.newest.newest_time
    return None if newest is None else int(newest % 1 * 1e9)
