"""The first start on a machine compiles the kernels, says so, and is waited for as long as it gets on."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from daq_core.codecs.bitshuffle import blocks_fit
from daq_core.errors import Unavailable
from daq_core.kernels.cache import NAME, choose_folder, remove_others
from daq_core.kernels.progress import COMPILING, Compiled, Diligence
from daq_core.processes import forks
from daq_core.processes.forks import ForkServer

N_KERNELS = 40

SLOW = """
import sys, time
from daq_core import fork_server
from daq_core.kernels.loading import Loaded

def load(tell):
    for n in range({n_kernels} + 1):
        tell(n, {n_kernels})
        time.sleep({pause_s})
    {then}
    return Loaded({n_kernels}, {n_compiled}, "", "")

fork_server.load_all_kernels = load
sys.exit(fork_server.main())
"""
"""A fork server whose kernels are slow; all else is its own."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> functools.partial[None]:
    def be_slow(pause_s: float = 0.02, then: str = "pass", n_compiled: int = 0) -> None:
        program = SLOW.format(n_kernels=N_KERNELS, pause_s=pause_s, then=then, n_compiled=n_compiled)
        monkeypatch.setattr(forks, "PROGRAM", ("-c", program))

    return functools.partial(be_slow)


async def test_a_slow_start_is_waited_for_and_no_word_of_it_is_lost(
    slow: functools.partial[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LOOK_S", 0.001)  # hundreds of waits end before the next word
    slow()
    server, told = ForkServer(), []
    server.tell = told.append
    await server.start()
    expected = [str(Compiled(n, N_KERNELS)) for n in range(N_KERNELS + 1)]
    assert [line for line in told if COMPILING in line] == expected
    await server.end()


def private_kb(process: int) -> int:
    (n_kb,) = re.findall(r"RssAnon:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(n_kb)


@pytest.mark.timeout(300)
async def test_what_compiling_took_of_memory_is_given_back(slow: functools.partial[None]) -> None:
    """400 MB, which each process that is forked would have as well: a new program loads what was compiled."""
    compiling = ForkServer()  # where nothing is compiled yet, that is not what is looked at
    await compiling.start()
    await compiling.end()
    slow(pause_s=0.0, then="globals()['kept'] = b'x' * 300_000_000", n_compiled=1)
    server = ForkServer()
    await server.start()
    assert server.pid is not None
    assert private_kb(server.pid) < 250_000
    await server.end()


async def test_a_start_that_says_nothing_for_long_is_told_again(
    slow: functools.partial[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LOOK_S", 0.001)
    monkeypatch.setattr(forks, "REPEAT_S", 0.01)
    slow(then="time.sleep(0.5)")
    server, told = ForkServer(), []
    server.tell = told.append
    await server.start()
    assert told.count(str(Compiled(N_KERNELS, N_KERNELS))) > 1
    await server.end()


@pytest.mark.parametrize("then", ["time.sleep(1000)", "while True: pass"], ids=["stands still", "in circles"])
async def test_a_start_that_does_not_get_on_is_given_up(
    slow: functools.partial[None], monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(forks, "LOOK_S", 0.05)
    monkeypatch.setattr(forks, "END_TIMEOUT_S", 0.1)
    monkeypatch.setattr(forks, "Diligence", functools.partial(Diligence, idle_s=5.0, most_cpu_s=1.0))
    slow(pause_s=0.0, then=then)
    server = ForkServer()
    with pytest.raises(Unavailable, match="did not start"):
        await server.start()


async def test_a_start_that_ends_is_given_up_at_once(slow: functools.partial[None]) -> None:
    slow(then="sys.exit(1)")
    with pytest.raises(Unavailable, match="did not start"):
        await ForkServer().start()


def compile_kernels(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``std-daq-ioc compile``."""
    return subprocess.run(
        [sys.executable, "-m", "ioc", "compile"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def seed(cache: Path) -> None:
    """Copy the kernels of these tests into a cache; all but the one that compiles soonest."""
    compile_kernels()  # what no test has needed yet
    left_out = shutil.ignore_patterns(f"*.{blocks_fit.__name__}-*")
    shutil.copytree(numba.config.CACHE_DIR, cache, ignore=left_out, dirs_exist_ok=True)


NOT_ONE, ALL_BUT_ONE = "", "all but one"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("there", [ALL_BUT_ONE, pytest.param(NOT_ONE, marks=pytest.mark.night)])
async def test_compile_leaves_nothing_to_compile_to_the_first_start_and_removes_old_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    old = tmp_path / "std-daq-ioc" / (NAME + "0123456789abcdef") / "daq_core_1"
    old.mkdir(parents=True)
    (old / "some.nbi").write_text("of another version")
    with monkeypatch.context() as own:
        own.setenv("XDG_CACHE_HOME", str(tmp_path))
        used = choose_folder()
    assert used is not None
    if there:
        seed(used)
    own_cache = {"XDG_CACHE_HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""}

    done = compile_kernels(**own_cache)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ kernels are compiled in \d+ s: ", done.stdout), done.stdout
    assert not old.parent.exists()
    assert "kernels are compiled already" in compile_kernels(**own_cache).stdout

    for name, value in own_cache.items():
        monkeypatch.setenv(name, value)
    server, told = ForkServer(), []
    server.tell = told.append
    await server.start()
    newer = used.with_name(NAME + "of-a-newer-version")
    assert remove_others(newer) == []  # while a service uses them
    await server.end()
    assert remove_others(newer) == [used]
    assert not [line for line in told if COMPILING in line]


def test_compile_says_why_nothing_is_compiled(tmp_path: Path) -> None:
    done = compile_kernels(NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "std-daq-ioc: NUMBA_DISABLE_JIT is set, so nothing can be compiled: unset it.\n"
