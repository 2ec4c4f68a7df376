"""Coverage-guided fuzzing with atheris: packets, recordings, JSON.

::

    NUMBA_DISABLE_JIT=1 python tests/fuzz/parsers.py packets -max_total_time=600
    python tests/fuzz/parsers.py recordings -max_total_time=600
    python tests/fuzz/parsers.py json -max_total_time=600

Each input must be taken or refused with the parser's own error; what comes out
else ends the program, with the input in a file. libFuzzer's options apply.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import atheris

with atheris.instrument_imports(include=["daq_core", "rest_bridge"]):
    from daq_core.config import DaqConfig
    from daq_core.errors import DaqError
    from daq_core.recordings.contents import read_recording
    from daq_core.recordings.recording import load_recording
    from daq_core.ring.words import Word
    from rest_bridge.models import write_request
    from rest_bridge.request_body import parse_object

CONFIG = DaqConfig.parse(
    {
        "detector_name": "JF",
        "detector_type": "jungfrau",
        "bit_depth": 16,
        "image_pixel_height": 8,
        "image_pixel_width": 1024,
        "n_modules": 1,
        "start_udp_port": 2000,
        "writer_user_id": 0,
        "module_positions": {"0": [0, 0, 1023, 7]},
    }
)


def packets() -> Callable[[bytes], None]:
    """Put datagrams into the ring: the input makes their headers, and their length right or wrong."""
    from tests.assembly.assembler import EMPTY, Assembler

    def try_input(content: bytes) -> None:
        assembler = Assembler(CONFIG, n_slots=8)
        assembler.arm()
        n_bytes = assembler.layout.datagram_bytes
        source = atheris.FuzzedDataProvider(content)
        n_sent = 0
        while source.remaining_bytes() and n_sent < 20:
            header = source.ConsumeBytes(48)
            length = source.ConsumeIntInRange(0, 9000) if source.ConsumeBool() else n_bytes
            assembler.receive_at(0, [header.ljust(length, b"\1")[:length]], now=n_sent)
            n_sent += 1
        counted = assembler.count("PLACED", "DUPLICATE", "LATE", "MALFORMED", "UNPLACED")
        assert sum(counted.values()) == n_sent == assembler.words[Word.RECEIVED]
        assert (assembler.ring.pixels[:, assembler.layout.room_bytes :] == EMPTY).all()

    return try_input


def recordings() -> Callable[[bytes], None]:
    """Read a recording whose one file is the input."""
    folder = Path(mkdtemp())
    (folder / "config.json").write_text(CONFIG.as_json())

    def try_input(content: bytes) -> None:
        (folder / "2000.dat").write_bytes(content)
        with contextlib.suppress(DaqError):
            read_recording(load_recording(folder))

    return try_input


def json() -> Callable[[bytes], None]:
    """Take the input as a request's body, its object as a write request and as a config change."""

    def try_input(content: bytes) -> None:
        with contextlib.suppress(DaqError):
            body = parse_object(content)
            with contextlib.suppress(DaqError):
                write_request(body)
            CONFIG.merge(body)

    return try_input


TARGETS = {"packets": packets, "recordings": recordings, "json": json}


def main() -> None:
    target = TARGETS[sys.argv[1]]()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
