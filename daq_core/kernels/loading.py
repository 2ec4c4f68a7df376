"""Load the kernels before they are used: from the cache, or compiled, by several processes at once.

A machine's first start compiles for more than a minute of one processor. What one process has compiled,
the others find in the cache, so that next to nothing is compiled twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba

from daq_core.kernels.cache import KernelCache, is_kept, remove_others
from daq_core.kernels.compiling import JIT, declared, own_folder
from daq_core.kernels.share_out import share_out


@dataclass(frozen=True)
class Loaded:
    """What came of loading the kernels."""

    n_kernels: int
    n_compiled: int
    folder: str  # where they are kept; "": nowhere
    trouble: str  # why those that were compiled cannot be kept
    removed: tuple[Path, ...] = ()  # folders of other versions


def load_kernels(
    tell: Callable[[int, int], None] | None = None, count_helpers: Callable[[], int] = lambda: 0
) -> Loaded:
    """Compile all kernels of one signature, or load them from the cache; call it before they are used.

    `tell` hears how many are done and how many there are, before the first and after those that had
    to be compiled: a machine's first start takes a minute. It also removes what it makes old.
    `count_helpers` says how many processes are forked to help, which only one without threads may do.
    """
    n_kernels, folder = len(declared), numba.config.CACHE_DIR
    if not JIT:
        return Loaded(n_kernels, 0, folder, "")
    missing = [(kernel, signature) for kernel, signature in reversed(declared) if not is_kept(kernel)]

    def say(n_compiled: int) -> None:
        if tell and missing:
            tell(n_kernels - max(len(missing) - n_compiled, 0), n_kernels)

    n_compiled = 0
    say(0)
    if folder and len(missing) > 1:
        for n_compiled in share_out(len(missing), count_helpers(), lambda i: _compile(*missing[i])):
            say(n_compiled)
    while declared:
        kernel, signature = declared[-1]
        if not kernel.overloads and _compile(kernel, signature):
            n_compiled += 1
            say(n_compiled)
        kernel.disable_compile()
        declared.pop()  # not before: who was interrupted may ask again
    if n_compiled == 0:
        return Loaded(n_kernels, 0, folder, "")
    trouble = KernelCache.trouble or ("" if folder else "no folder for them is writable")
    removed = remove_others(own_folder) if own_folder is not None and not trouble else []
    return Loaded(n_kernels, n_compiled, folder, trouble, tuple(removed))


def _compile(kernel: Any, signature: Any) -> bool:
    """Compile a kernel, or take it from the cache; returns whether it had to be compiled."""
    kernel.compile(signature)
    return bool(kernel.stats.cache_misses)
