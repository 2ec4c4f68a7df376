"""How the kernels are compiled, and the few machine operations numba does not offer.

``kernel`` and ``kernel_of`` are the decorators: no GIL, numpy's error model,
cached on disk (``daq_core.kernels.cache``).

Every operation has a plain Python twin for ``NUMBA_DISABLE_JIT=1``, so that the
kernels can be stepped through and compared with the compiled ones.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from llvmlite.binding import add_symbol
from numba import types
from numba.core import cgutils

from daq_core.kernels.cache import KernelCache, choose_folder, hold
from daq_core.linux.futex import SYS_FUTEX
from daq_core.linux.libc import libc

JIT = not numba.config.DISABLE_JIT
own_folder = choose_folder() if JIT and not numba.config.CACHE_DIR else None
if own_folder is not None:
    numba.config.CACHE_DIR = str(own_folder)
    hold(own_folder)
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """Compile a function for whatever types it is first called with.

    Without reference counts (``_nrt``): a kernel only borrows the arrays it is given, it makes
    none, and a locked increment for each view of one costs more than all else for a packet.
    """
    return _compiled(function, forceinline=False)  # said, for else those that an inlined one calls are, too


def inlined_kernel(function: Kernel) -> Kernel:
    """Compile a function into the body of each kernel that calls it.

    For what is called for every packet: a call hands over each array as seven numbers, and a
    ring has many, which costs more than most functions do.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Kernel, *, forceinline: bool) -> Kernel:
    compiled: Any = numba.njit(nogil=True, error_model="numpy", _nrt=False, forceinline=forceinline)(function)
    if numba.config.CACHE_DIR and JIT:
        compiled._cache = KernelCache(function)  # what njit(cache=True) does, with numba's own
    done: Kernel = compiled
    return done


declared: list[tuple[Any, Any]] = []  # kernels of one signature that are not loaded yet


def kernel_of(signature: Any) -> Callable[[Kernel], Kernel]:
    """Compile a function for one signature: only such a kernel can be handed to another.

    That happens in ``daq_core.kernels.loading``, so that a process that runs no kernel, only
    knows of them, does not wait for them.
    """

    def declare(function: Kernel) -> Kernel:
        compiled = kernel(function)
        declared.append((compiled, signature))
        return compiled

    return declare


intrinsic: Callable[[Any], Any] = numba.extending.intrinsic  # what it makes of a generator is callable

if JIT:

    @intrinsic
    def load_acquire(typing_context: Any, array: Any, index: Any) -> Any:
        """``array[index]`` of a one-dimensional integer array, seen before everything after it."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            return builder.load_atomic(pointer, "acquire", array.dtype.bitwidth // 8)

        return array.dtype(array, types.intp), generate

    @intrinsic
    def store_release(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        """``array[index] = value``, seen by others after everything before it."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            builder.store_atomic(arguments[2], pointer, "release", array.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, array.dtype), generate

    @intrinsic
    def fetch_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        """Add to ``array[index]`` and return what it was, in one step for all threads."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            added = context.cast(builder, arguments[2], signature.args[2], array.dtype)
            return builder.atomic_rmw("add", pointer, added, "acq_rel")

        return array.dtype(array, types.intp, value), generate

    @intrinsic
    def exchange(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        """Set ``array[index]`` and return what it was, in one step for all threads."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            new = context.cast(builder, arguments[2], signature.args[2], array.dtype)
            return builder.atomic_rmw("xchg", pointer, new, "acq_rel")

        return array.dtype(array, types.intp, value), generate

    @intrinsic
    def finish_stores(typing_context: Any) -> Any:
        """Let nothing that is stored from here on be seen before what ``daq_core.kernels.strips`` stored."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def copy_bytes(
        typing_context: Any, target: Any, target_offset: Any, source: Any, source_offset: Any, n: Any
    ) -> Any:
        """Copy n bytes between two one-dimensional uint8 arrays, as memcpy: no bounds, no overlap."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            into = context.make_array(target)(context, builder, arguments[0]).data
            out_of = context.make_array(source)(context, builder, arguments[2]).data
            cgutils.raw_memcpy(
                builder,
                builder.gep(into, [arguments[1]]),
                builder.gep(out_of, [arguments[3]]),
                arguments[4],
                1,
            )
            return context.get_dummy_value()

        return types.void(target, types.intp, source, types.intp, types.intp), generate

    @intrinsic
    def _int32_at(typing_context: Any, address: Any) -> Any:
        """Read the 32-bit integer at an address."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))

        return types.int32(types.intp), generate

    def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return cgutils.get_item_pointer(
            context, builder, signature.args[0], array, [arguments[1]], wraparound=False
        )

    def external(name: str, function: Any, signature: Any) -> Any:
        """Make a C function, loaded with ctypes, one that kernels can call and that caches."""
        address = ctypes.cast(function, ctypes.c_void_p).value
        add_symbol(name, address)
        return types.ExternalFunction(name, signature)

    recvmmsg: Any = types.ExternalFunction(
        "recvmmsg", types.int32(types.int32, types.intp, types.uint32, types.int32, types.intp)
    )
    sendmmsg: Any = types.ExternalFunction(
        "sendmmsg", types.int32(types.int32, types.intp, types.uint32, types.int32)
    )
    yield_cpu: Any = types.ExternalFunction("sched_yield", types.int32())
    poll: Any = types.ExternalFunction("poll", types.int32(types.intp, types.uint64, types.int32))
    _errno_location = types.ExternalFunction("__errno_location", types.intp())
    _clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
    _nanosleep: Any = types.ExternalFunction("nanosleep", types.int32(types.intp, types.intp))
    _syscall: Any = types.ExternalFunction(
        "syscall",
        types.int64(types.int64, types.intp, types.int64, types.int64, types.intp, types.intp, types.int64),
    )

    @kernel
    def last_error() -> int:
        """Read errno, right after the system call that failed."""
        return _int32_at(_errno_location())

    @kernel
    def now_ns(clock: int, timespec: Any) -> int:
        """Read a clock (0 real time, 1 monotonic) in nanoseconds; `timespec` is (2,) int64 scratch."""
        _clock_gettime(np.int32(clock), timespec.ctypes.data)
        return timespec[0] * 1_000_000_000 + timespec[1]

    @kernel
    def sleep_ns(duration: int, timespec: Any) -> None:
        """Sleep for less than a second; `timespec` is (2,) int64 scratch."""
        timespec[0] = 0
        timespec[1] = duration
        _nanosleep(timespec.ctypes.data, 0)

    @kernel
    def wake(words: Any, index: int) -> None:
        """Wake whoever waits with :func:`wait_for_change` on the low half of a shared word."""
        _syscall(SYS_FUTEX, words.ctypes.data + index * 8, _FUTEX_WAKE, 2**31 - 1, 0, 0, 0)

else:

    def load_acquire(array: Any, index: int) -> Any:
        return array[index]

    def store_release(array: Any, index: int, value: Any) -> None:
        array[index] = value

    _adding = threading.Lock()

    def fetch_add(array: Any, index: int, value: int) -> Any:
        with _adding:
            before = array[index]
            array[index] += value
            return before

    def exchange(array: Any, index: int, value: int) -> Any:
        with _adding:
            before = array[index]
            array[index] = value
            return before

    def external(name: str, function: Any, signature: Any) -> Any:
        return lambda *arguments: function(*map(int, arguments))

    def finish_stores() -> None:
        pass

    def copy_bytes(target: Any, target_offset: int, source: Any, source_offset: int, n: int) -> None:
        target[target_offset : target_offset + n] = source[source_offset : source_offset + n]

    def recvmmsg(fd: int, messages: int, n: int, flags: int, timeout: int) -> int:
        return int(libc.recvmmsg(int(fd), ctypes.c_void_p(int(messages)), int(n), int(flags), None))

    def sendmmsg(fd: int, messages: int, n: int, flags: int) -> int:
        return int(libc.sendmmsg(int(fd), ctypes.c_void_p(int(messages)), int(n), int(flags)))

    def poll(descriptors: int, n: int, timeout_ms: int) -> int:
        return int(libc.poll(ctypes.c_void_p(int(descriptors)), int(n), int(timeout_ms)))

    def yield_cpu() -> int:
        time.sleep(0)
        return 0

    def last_error() -> int:
        return ctypes.get_errno()

    def now_ns(clock: int, timespec: Any) -> int:
        return time.time_ns() if clock == 0 else time.monotonic_ns()

    def sleep_ns(duration: int, timespec: Any) -> None:
        time.sleep(duration / 1e9)

    def wake(words: Any, index: int) -> None:
        libc.syscall(
            SYS_FUTEX,
            ctypes.c_void_p(int(words.ctypes.data + index * 8)),
            _FUTEX_WAKE,
            2**31 - 1,
            None,
            None,
            0,
        )


_FUTEX_WAKE = 1
