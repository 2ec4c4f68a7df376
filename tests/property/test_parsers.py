"""Every parser, given anything: it answers, or says no with its own error; nothing else comes out.

Those of bsread messages, token files and lists of networks have theirs in ``unit``.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.errors import InvalidConfig, InvalidRequest
from daq_core.kernels.compiling import JIT
from daq_core.recordings.contents import read_recording
from daq_core.recordings.recording import CONFIG_NAME, load_recording
from daq_core.ring.words import Word
from daq_core.showing.journal import Journal
from daq_core.state.status import Acquisition, DaqState, DaqStatus
from ioc.access.file import AccessFile
from ioc.access.file import parse as parse_access_file
from ioc.program.client.config_changes import read_changes
from ioc.service.autosave import Autosave
from ioc.service.saved_config import SavedConfig
from ioc.site.aliases import pv_names, read_aliases
from rest_bridge import models
from rest_bridge.access import Access
from rest_bridge.request_body import parse_object
from tests.assembly.assembler import EMPTY, Assembler
from tests.daq.loopback import eiger, jungfrau
from tests.property.geometries import gigafrost

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 70_000)
    | st.floats()
    | st.text(max_size=8)
    | st.integers().map(str)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
DEEP = b"[" * 100_000

JUNGFRAU = jungfrau(rows=8, start_udp_port=2000)
CONFIGS = {
    "jungfrau": JUNGFRAU,
    "eiger-4": eiger(4, start_udp_port=2000),
    "eiger-12": eiger(12, start_udp_port=2000),
    "eiger-32": eiger(32, start_udp_port=2000),
    "gigafrost": gigafrost(image_pixel_height=64, image_pixel_width=96),
}


# ------------------------------------------------------------------------- config, request, body


@given(st.dictionaries(st.sampled_from(sorted(DaqConfig.model_fields)) | st.text(max_size=9), json_values))
def test_a_config_change_of_anything_gives_a_config_or_is_refused(changes: dict[str, Any]) -> None:
    try:
        config = JUNGFRAU.merge(changes)
    except InvalidConfig:
        return
    assert DaqConfig.parse(json.loads(config.as_json())) == config
    assert layout_of(config).image_bytes > 0


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
@example(DEEP)
@example(b'{"detector_name": ' + DEEP)
def test_a_config_file_of_anything_is_a_config_or_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector.json"
        path.write_bytes(content)
        with contextlib.suppress(InvalidConfig):
            DaqConfig.load(path)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("output_file", "n_images", "run_id"), json_values)))
def test_a_write_request_of_anything_is_a_request_or_refused(body: dict[str, Any]) -> None:
    try:
        request = models.write_request(body)
    except InvalidRequest:
        return
    assert request.output_file.startswith("/")
    assert 1 <= request.n_images < 2**31


@given(st.binary(max_size=400) | json_values.map(lambda value: json.dumps(value).encode()))
@example(DEEP)
@example(b'{"a":' * 100_000)
@example(b'{"n": ' + b"9" * 10_000 + b"}")
def test_a_body_of_anything_is_an_object_of_finite_numbers_or_refused(text: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert_finite(parse_object(text))


def assert_finite(value: object) -> None:
    if isinstance(value, float):
        assert math.isfinite(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_finite(inner)


@given(
    host=st.text(max_size=30) | st.sampled_from(["localhost", "[::1]:80", "[", "a:b:c", ":", "1.2.3.4:x"]),
    origin=st.none() | st.text(max_size=30),
    authorization=st.text(max_size=30) | st.just("Bearer right-token-0123456789x"),
    method=st.sampled_from(["GET", "POST", "PUT", "get"]),
    peer=st.text(max_size=20),
)
def test_headers_of_anything_open_nothing(
    host: str, origin: str | None, authorization: str, method: str, peer: str
) -> None:
    headers = {"host": host, "authorization": authorization} | ({"origin": origin} if origin else {})
    denied = Access(bind="192.0.2.1", token="right-token-0123456789").refuses(method, headers, peer)
    assert denied is not None or method == "GET"


# ------------------------------------------------------------------------------------- packets


def hostile(random_bytes: random.Random, good: bytes, spoils: list[tuple[int, int]], length: int) -> bytes:
    """Spoil bytes of a packet, and cut or lengthen it."""
    packet = bytearray(good)
    for at, value in spoils:
        packet[at % min(len(packet), 64)] = value  # the header, and a little more
    return bytes(packet[:length]) + random_bytes.randbytes(max(0, length - len(packet)))


@pytest.mark.parametrize("kind", CONFIGS)
@settings(
    max_examples=40 if JIT else 3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_packets_of_anything_are_counted_and_stay_in_their_slots(kind: str, data: st.DataObject) -> None:
    config = CONFIGS[kind]
    assembler = Assembler(config, n_slots=8)
    assembler.arm()
    n_bytes = assembler.layout.datagram_bytes
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    n_sent = 0
    for _ in range(data.draw(st.integers(1, 6))):
        packets = []
        for _ in range(data.draw(st.integers(1, 12))):
            good = chance.randbytes(n_bytes) if chance.random() < 0.5 else bytes(n_bytes)
            spoils = data.draw(
                st.lists(st.tuples(st.integers(0, 63), st.sampled_from([0, 1, 2, 127, 128, 255])), max_size=6)
            )
            length = data.draw(
                st.sampled_from([n_bytes, n_bytes, n_bytes, 0, 1, 47, n_bytes - 1, n_bytes + 8])
            )
            packets.append(hostile(chance, good, spoils, length))
        port = data.draw(st.integers(0, len(assembler.layout.ports) - 1))
        assembler.receive_at(port, packets, now=n_sent)
        assembler.publish_ready(now=n_sent)
        n_sent += len(packets)
    assembler.publish_ready(now=n_sent + 10**12)  # packets in doubt are counted when that is over
    counted = assembler.count("PLACED", "DUPLICATE", "LATE", "MALFORMED", "UNPLACED")
    assert sum(counted.values()) == n_sent == assembler.words[Word.RECEIVED]
    assert (assembler.ring.pixels[:, assembler.layout.room_bytes :] == EMPTY).all()
    assert assembler.words[Word.OPENED] - assembler.words[Word.PUBLISHED] <= 8


# --------------------------------------------------------------------------------------- files


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 47, 48, 8240, 8241, 65507, 65508, 2**63, 2**64 - 1]), st.integers(0, 8300)
        ),
        max_size=4,
    ),
    st.binary(max_size=12),
)
def test_a_recording_of_anything_is_read_or_refused(records: list[tuple[int, int]], rest: bytes) -> None:
    """Records that say one length and have another, and what follows them."""
    content = b"".join(length.to_bytes(8, "little") + b"\x01" * n for length, n in records)
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_NAME).write_text(JUNGFRAU.as_json())
        (Path(folder) / "2000.dat").write_bytes(content + rest)
        with contextlib.suppress(InvalidRequest):
            read_recording(load_recording(folder))


entries = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["FINISHED", "FAILED"]) | json_values,
        "request": st.none()
        | json_values
        | st.fixed_dictionaries(
            {
                "output_file": st.just("/a.h5") | json_values,
                "n_images": st.just(3) | json_values,
                "run_id": scalars,
            }
        ),
    },
    optional={
        "message": st.text(max_size=5) | json_values,
        "n_write_requested": st.integers(0, 5) | json_values,
        "n_write_completed": st.integers(0, 5) | json_values,
        "start_time": st.floats(0, 2e9) | json_values,
        "stop_time": st.floats(0, 2e9) | json_values,
        "begun": json_values,
        "other": json_values,
    },
)


@given(st.lists(st.binary(max_size=60) | entries.map(lambda e: json.dumps(e).encode()), max_size=5))
@example([DEEP])
def test_a_journal_of_anything_is_read_and_what_is_read_can_be_shown(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "journal.jsonl").write_bytes(b"\n".join(lines))
        journal = Journal(Path(folder))
    shown = models.finished(journal.newest_first())
    assert len(shown) <= journal.total
    for acquisition in journal.newest_first():
        models.WriterStatus.of(DaqStatus(DaqState.READY, acquisition, receiver_down=False)).model_dump_json()
        assert isinstance(acquisition, Acquisition)


@given(
    st.binary(max_size=80)
    | st.fixed_dictionaries({"config": json_values}, optional={"config_file": json_values}).map(
        lambda kept: json.dumps(kept).encode()
    ),
    st.booleans(),
)
@example(DEEP, True)
def test_a_saved_config_of_anything_never_keeps_the_service_from_starting(content: bytes, ours: bool) -> None:
    with TemporaryDirectory() as folder:
        given_config = Path(folder) / "detector.json"
        given_config.write_text(JUNGFRAU.as_json())
        saved = SavedConfig(given_config, Path(folder))
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            if ours:
                content = json.dumps(
                    json.loads(content) | {"config_file": str(given_config.resolve())}
                ).encode()
        saved.path.write_bytes(content)
        assert saved.choose(fresh=False) == [JUNGFRAU]


# ------------------------------------------------- files of the Channel Access face


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
@example(b"a,DAQ:Stop\na,DAQ:Stop")
@example(b'"' + b"x" * 140_000)
@example(b"a\0b, DAQ:Stop")
def test_an_alias_file_of_anything_is_names_of_pvs_or_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "aliases.csv"
        path.write_bytes(content)
        with contextlib.suppress(InvalidConfig):
            assert set(read_aliases(path, "X:").values()) <= set(pv_names("X:"))


ACCESS_WORDS = [
    "UAG",
    "HAG",
    "ASG",
    "RULE",
    "CALC",
    "INPA",
    "(",
    ")",
    "{",
    "}",
    ",",
    "0",
    "1",
    "READ",
    "WRITE",
]
ACCESS_WORDS += ["NONE", "TRAPWRITE", "DEFAULT", "GUIDE", '"', "#", "\n", "name", "-1", "9" * 5000]


@given(st.text(max_size=60) | st.lists(st.sampled_from(ACCESS_WORDS), max_size=20).map(" ".join))
@example("ASG(DEFAULT) {" * 20_000)
@example("(" * 100_000)
def test_an_access_file_of_anything_is_rules_or_refused_in_one_line(text: str) -> None:
    said = ""
    try:
        assert isinstance(parse_access_file(text, "file"), AccessFile)
    except InvalidConfig as refused:
        said = str(refused)
    assert len(said.splitlines()) <= 1


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries({}, optional={"settings": json_values, "starts": json_values}).map(
        lambda kept: json.dumps(kept).encode()
    )
)
@example(DEEP)
@example(b'{"settings": {}, "starts": ' + b"9" * 5000 + b"}")
def test_saved_settings_of_anything_never_keep_the_service_from_starting(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "settings.json").write_bytes(content)
        assert Autosave(Path(folder)).state.n_starts >= 1


# ------------------------------------------------------------------------------------ command line


@given(
    st.lists(
        st.text(max_size=20) | st.tuples(st.text(max_size=6), st.text(max_size=12)).map("=".join), max_size=4
    )
)
@example(["a=" + "[" * 100_000])
@example(["\0"])
@example(["x" * 5000])
def test_changes_on_the_command_line_are_taken_or_refused(arguments: list[str]) -> None:
    with contextlib.suppress(typer.BadParameter):
        assert all(isinstance(key, str) for key in read_changes(arguments))


@given(st.binary(max_size=60))
@example(DEEP)
def test_a_file_of_changes_is_an_object_or_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "changes.json"
        path.write_bytes(content)
        with contextlib.suppress(typer.BadParameter):
            assert isinstance(read_changes([str(path)]), dict)


def test_the_packets_above_are_of_all_kinds_of_placing() -> None:
    packings = {int(layout_of(config).ports["packing"][0]) for config in CONFIGS.values()}
    assert {0, 4, 12} <= packings
    assert np.dtype(layout_of(CONFIGS["eiger-32"]).dtype).itemsize == 4
