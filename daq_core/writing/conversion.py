"""Jungfrau: from raw pixels to float32, with the gain and pedestal of each pixel and gain stage.

The two top bits of a raw pixel tell the stage that was used: 00 G0, 01 G1, 11
G2; 10 does not occur in a working pixel, which becomes NaN and is counted. ::

    value = ((raw & 0x3FFF) - pedestal[stage]) * gain[stage]

The maps are those of ``daq_core.writing.gain_maps``.

Source: SLS detector documentation (gain bits); std_daq's converter (formula),
which took 11 for G0 and a single module's map for all.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from daq_core.assembling.placing import kernels_of
from daq_core.kernels.compiling import JIT, finish_stores, intrinsic, kernel, kernel_of
from daq_core.ring.ring import INCOMPLETE, Ring
from daq_core.writing.gain_maps import STAGES, attach_maps

if TYPE_CHECKING:
    from daq_core.config import DaqConfig

INVALID_STAGE = 2
VALUE_BITS = 14

PIXELS_AT_ONCE = 16
BLOCK = 2048
"""Pixels: their maps, 48 KiB, stay in the nearest cache while all images of a batch are converted."""

if JIT:

    @intrinsic
    def _convert_16(
        typing_context: Any, raw: Any, next_raw: Any, maps: Any, converted: Any, first: Any, aligned: Any
    ) -> Any:
        """Convert PIXELS_AT_ONCE pixels from `first` on, as :func:`_convert_pixel` does each of them.

        next_raw : (pixels,) uint16, the image that comes next; what it will need is fetched
        aligned  : bool, the pixels fill a cache line of `converted`, which is written past the cache
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            i16, i32, i64, f32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
            first_pixel, is_aligned = arguments[4:]
            in_raw, in_next, in_maps, in_converted = (
                (kind, context.make_array(kind)(context, builder, value))
                for kind, value in zip((raw, next_raw, maps, converted), arguments, strict=False)
            )

            def all_of(kind: Any, value: float) -> Any:
                return ir.Constant(ir.VectorType(kind, PIXELS_AT_ONCE), [value] * PIXELS_AT_ONCE)

            def vector_at(array: Any, kind: Any, *indices: Any) -> Any:
                place = cgutils.get_item_pointer(context, builder, *array, indices, wraparound=False)
                return builder.bitcast(place, ir.VectorType(kind, PIXELS_AT_ONCE).as_pointer())

            expected = vector_at(in_next, i16, first_pixel)
            kind = ir.FunctionType(ir.VoidType(), [expected.type, i32, i32, i32])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(prefetch, [expected, i32(0), i32(3), i32(1)])

            words = builder.load(vector_at(in_raw, i16, first_pixel), align=2)
            words = builder.zext(words, ir.VectorType(i32, PIXELS_AT_ONCE))
            value = builder.and_(words, all_of(i32, 2**VALUE_BITS - 1))
            value = builder.sitofp(value, ir.VectorType(f32, PIXELS_AT_ONCE))
            stage = builder.lshr(words, all_of(i32, VALUE_BITS))
            is_stage = [builder.icmp_unsigned("==", stage, all_of(i32, number)) for number in range(3)]

            def of_stage(which: int) -> Any:
                """Return the pedestals (0) or gains (1) of the stages that the pixels are in."""
                of_each = [
                    builder.load(vector_at(in_maps, f32, i64(which), i64(k), first_pixel), align=4)
                    for k in range(STAGES)
                ]
                return builder.select(
                    is_stage[0], of_each[0], builder.select(is_stage[1], of_each[1], of_each[2])
                )

            is_invalid = is_stage[INVALID_STAGE]
            result = builder.fmul(builder.fsub(value, of_stage(0)), of_stage(1))
            result = builder.select(is_invalid, all_of(f32, float("nan")), result)
            place = vector_at(in_converted, f32, first_pixel)
            with builder.if_else(is_aligned) as (whole_line, otherwise):
                with whole_line:
                    store = builder.store(result, place, align=4 * PIXELS_AT_ONCE)
                    store.set_metadata("nontemporal", builder.module.add_metadata([i32(1)]))
                with otherwise:
                    builder.store(result, place, align=4)
            return builder.zext(builder.ctpop(builder.bitcast(is_invalid, i16)), i64)

        return types.int64(raw, next_raw, maps, converted, types.intp, types.boolean), generate

else:

    def _convert_16(raw: Any, next_raw: Any, maps: Any, converted: Any, first: int, aligned: bool) -> int:
        return sum(_convert_pixel(raw, maps, converted, first + i) for i in range(PIXELS_AT_ONCE))


@kernel
def _convert_pixel(raw: Any, maps: Any, converted: Any, i: int) -> int:
    """Convert one pixel; returns 1 if its gain stage does not exist, else 0."""
    stage = np.int64(raw[i]) >> VALUE_BITS
    if stage == INVALID_STAGE:
        converted[i] = np.float32(np.nan)
        return 1
    if stage == 3:  # 11 is the third
        stage = np.int64(2)
    value = np.float32(raw[i] & np.uint16(2**VALUE_BITS - 1))
    converted[i] = (value - maps[0, stage, i]) * maps[1, stage, i]
    return 0


@kernel_of(
    types.int64(types.uint8[:, ::1], types.int64[::1], types.float32[:, :, ::1], types.float32[:, ::1])
)
def convert(slots: Any, chosen: Any, maps: Any, converted: Any) -> int:
    """Convert images, block by block, so that the maps are read from memory once for all of them.

    Parameters
    ----------
    slots     : (slots, bytes) uint8, images of uint16 at the beginning of each
    chosen    : (images,) int64, the slots of the images
    maps      : (2, 3, pixels) float32, pedestals and gains
    converted : (images, pixels or more) float32, filled; fastest when each begins at a cache line

    Returns
    -------
    int  number of pixels in the gain stage that does not exist; they are NaN
    """
    n_invalid = 0
    n_pixels = maps.shape[2]
    n_images = chosen.shape[0]
    aligned = (converted.ctypes.data | 4 * converted.shape[1]) % (4 * PIXELS_AT_ONCE) == 0
    for first in range(0, n_pixels, BLOCK):
        end = min(first + BLOCK, n_pixels)
        for k in range(n_images):
            raw = slots[chosen[k]].view(np.uint16)
            next_raw = slots[chosen[(k + 1) % n_images]].view(np.uint16)
            i = first
            while i + PIXELS_AT_ONCE <= end:
                n_invalid += _convert_16(raw, next_raw, maps, converted[k], i, aligned)
                i += PIXELS_AT_ONCE
            while i < end:
                n_invalid += _convert_pixel(raw, maps, converted[k], i)
                i += 1
    finish_stores()
    return n_invalid


class Converter:
    """Converts images of the ring into memory of its own, for a writer."""

    def __init__(self, config: DaqConfig, maps_descriptor: int, max_images: int) -> None:
        self._layout = config.layout
        self._erase = kernels_of(config).erase
        self._ports = self._layout.ports.copy()
        self._ports["item_bytes"] = self._layout.dtype.itemsize
        self._n_pixels = self._layout.image_shape[0] * self._layout.image_shape[1]
        self._maps = attach_maps(maps_descriptor, self._n_pixels)
        padded = -(-self._n_pixels // PIXELS_AT_ONCE) * PIXELS_AT_ONCE
        memory = mmap.mmap(-1, max_images * padded * 4)  # whole pages: each image begins at a cache line
        self._converted = np.frombuffer(memory, np.float32).reshape(max_images, padded)

    def convert(self, ring: Ring, slots: npt.NDArray[np.int64]) -> tuple[list[npt.NDArray[Any]], int]:
        """Return the converted images of some slots, (rows, columns) float32 each, and their invalid pixels.

        The memory is used again by the next call. Pixels that did not arrive are 0, as in raw images.
        """
        images = self._converted[: len(slots)]
        n_invalid = convert(ring.pixels, slots, self._maps, images)
        for slot, image in zip(slots, images, strict=True):
            if ring.slots["state"][slot] == INCOMPLETE:
                self._erase_missing(ring.marks[slot], image[: self._n_pixels])
        return [image[: self._n_pixels].reshape(self._layout.image_shape) for image in images], n_invalid

    def _erase_missing(self, marks: npt.NDArray[np.uint64], image: npt.NDArray[np.float32]) -> None:
        arrived = np.unpackbits(marks.view(np.uint8), bitorder="little")
        for port, here in enumerate(self._ports):
            first = int(here.first_unit)
            for unit in np.flatnonzero(arrived[first : first + int(here.n_units)] == 0):
                self._erase(self._ports, port, int(unit), image.view(np.uint8))
