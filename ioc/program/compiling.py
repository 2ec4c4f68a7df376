"""The command that compiles the kernels before the first start: compile."""

from __future__ import annotations

import time

import typer

from daq_core.amounts import counted
from daq_core.errors import Unavailable
from ioc.program.progress import shown_progress


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("compile", rich_help_panel="Service")(compile_kernels)


def compile_kernels() -> None:
    """Compile what receives and packs images for this machine, so that the first start need not.

    Part of an installation: run it as the user, and with the XDG_CACHE_HOME, of the service. What other
    versions have compiled is removed, unless one of them is running.
    """
    import daq_core.simulating.sender  # noqa: F401 - what simulate and replay send with
    from daq_core.fork_server import load_all_kernels
    from daq_core.kernels.compiling import JIT

    if not JIT:
        raise Unavailable("NUMBA_DISABLE_JIT is set, so nothing can be compiled: unset it.")
    began_s = time.monotonic()
    with shown_progress("compiling", None) as show:
        loaded = load_all_kernels(lambda n_done, n_kernels: show(n_done, "compiling", n_kernels))
    if loaded.trouble:
        raise Unavailable(
            f"The compiled kernels cannot be kept: {loaded.trouble}. "
            "Set XDG_CACHE_HOME to a folder that this user may write in."
        )
    for old in loaded.removed:
        print(f"removed: {old}, of another version")
    took = f" in {time.monotonic() - began_s:.0f} s" if loaded.n_compiled else " already"
    are = "is" if loaded.n_kernels == 1 else "are"
    print(f"{counted(loaded.n_kernels, 'kernel')} {are} compiled{took}: {loaded.folder}")
