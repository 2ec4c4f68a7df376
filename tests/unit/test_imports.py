"""What the processes load, which is most of what a start takes: each in an interpreter of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import daq_core
from tests.processes.service import JUNGFRAU_2

COMPILER = {"numba", "llvmlite"}
FILES = {"h5py", "hdf5plugin"}
FACES = {"caproto", "fastapi", "uvicorn", "redis", "pydantic"}

JUNGFRAU = JUNGFRAU_2 | {"start_udp_port": 30100}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_control_loads_neither_the_compiler_nor_hdf5() -> None:
    """It knows what the detectors send; receivers and writers are forked from a process that has the rest."""
    loaded = loaded_by("import ioc.serve")
    assert {"caproto", "fastapi"} <= loaded
    assert not loaded & (COMPILER | FILES | {"redis", "zmq"})  # of Redis and ZeroMQ, only who uses them


def test_a_receiver_of_packets_loads_no_more_than_it_needs() -> None:
    """READY waits for it; the fork server loads the rest when it has forked the first."""
    loaded = loaded_by("from daq_core import fork_server\nfork_server.load_receiver()")
    assert "numba" in loaded
    assert not loaded & (FILES | {"asyncio", "zmq", "caproto", "fastapi"})


def test_all_kernels_of_receivers_and_writers_are_loaded_before_the_first_is_forked() -> None:
    """What declares kernels after that compiles them in each process anew, while packets come."""
    core = Path(daq_core.__file__).parent
    rooms = ("receiving", "assembling", "codecs", "files", "writing")
    sources = [source for room in rooms for source in core.joinpath(room).rglob("*.py")]
    declaring = [source for source in sources if "@kernel_of(" in source.read_text()]
    names = {".".join(source.relative_to(core.parent).with_suffix("").parts) for source in declaring}
    load = "from daq_core import fork_server\nfork_server.load_all_kernels(lambda *_: None)"
    program = f"{load}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(names) > 5
    assert names <= set(done.stdout.split())


def test_a_config_is_checked_without_the_compiler() -> None:
    loaded = loaded_by(f"from daq_core.config import DaqConfig\nDaqConfig.parse({JUNGFRAU!r})")
    assert "pydantic" in loaded
    assert not loaded & (COMPILER | FILES)


def test_the_table_of_pvs_knows_no_protocol() -> None:
    """Rows, values and alarms are for the face of any: Channel Access is one of them."""
    loaded = loaded_by("import ioc.pvs.daq, ioc.pvs.stream")
    assert "daq_core" in loaded
    assert not loaded & {"caproto", "p4p"}


def test_the_command_line_is_known_without_what_the_commands_need() -> None:
    """``--help`` and the client commands answer at once."""
    loaded = loaded_by("import ioc.program.main")
    assert "typer" in loaded
    assert not loaded & (COMPILER | FILES | FACES | {"numpy", "asyncio", "requests", "rich", "psutil"})


def imports_in_functions(source: Path) -> list[str]:
    """Return the modules that a file imports inside of its functions."""
    found = []
    for function in ast.walk(ast.parse(source.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom):
                    found.append(f"{node.module}.{node.names[0].name}")
                elif isinstance(node, ast.Import):
                    found += [alias.name for alias in node.names]
    return found


def test_only_the_fork_server_imports_another_room_inside_a_function() -> None:
    """It is where the processes are put together; elsewhere such an import hides an arrow that runs up."""
    core = Path(daq_core.__file__).parent
    sources = [source for source in core.rglob("*.py") if source.name != "fork_server.py"]
    hidden = [
        f"{source.relative_to(core)} imports {name}"
        for source in sources
        for name in imports_in_functions(source)
        if name.startswith("daq_core.") and name.split(".")[1] != source.relative_to(core).parts[0]
    ]
    assert len(sources) > 50
    assert imports_in_functions(core / "fork_server.py")
    assert not hidden
