"""What a message says is read strictly, and no message whatever breaks the reader."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.detectors import layout_of
from daq_core.errors import InvalidConfig, InvalidRequest
from daq_core.receiving.stream_messages import BadMessage, MessageForm, MessageReader, compress, pack
from daq_core.recordings.recorder import record
from daq_core.simulating.simulator import Simulator

WIRES = st.builds(
    MessageForm,
    st.sampled_from(["bsread", "array-1.0"]),
    st.sampled_from(["none", "bitshuffle_lz4", "lz4"]),
    st.sampled_from(["little", "big"]),
)
VALUES: dict[str, Any] = {
    "detector_name": "CAM",
    "detector_type": "bsread",
    "bit_depth": 16,
    "image_pixel_height": 5,
    "image_pixel_width": 9,
    "n_modules": 1,
    "start_udp_port": 0,
    "writer_user_id": 0,
    "module_positions": {},
    "stream_addresses": ["tcp://camera:9999"],
}
LAYOUT = layout_of(DaqConfig.parse(VALUES))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
channels = st.fixed_dictionaries(
    {},
    optional={
        "shape": st.just([9, 5]) | json_values,
        "type": st.just("uint16") | json_values,
        "encoding": st.sampled_from(["little", "big"]) | json_values,
        "compression": st.sampled_from(["none", "bitshuffle_lz4", "lz4"]) | json_values,
    },
)


def put_or_refuse(reader: MessageReader, parts: list[bytes]) -> None:
    """Read a message and its pixels; nothing but BadMessage may come out, and nothing outside be touched."""
    memory = np.full(LAYOUT.image_bytes + 64, 0x5A, np.uint8)
    with contextlib.suppress(BadMessage):
        reader.read(parts).put(memory[32:-32].view(np.uint16))
    assert (memory[:32] == 0x5A).all()
    assert (memory[-32:] == 0x5A).all()


@given(
    WIRES,
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([8, 16, 32]),
    st.integers(0, 2**64 - 1),
    st.randoms(use_true_random=False),
)
def test_what_is_packed_is_read_back(
    wire: MessageForm, height: int, width: int, bit_depth: int, image_id: int, random: Any
) -> None:
    size = {"image_pixel_height": height, "image_pixel_width": width, "bit_depth": bit_depth}
    layout = layout_of(DaqConfig.parse(VALUES | size))
    image = np.frombuffer(random.randbytes(layout.image_bytes), layout.dtype).reshape(height, width)
    message = MessageReader(layout).read(pack(compress(image, wire), layout, image_id, wire))
    into = np.zeros_like(image)
    message.put(into)
    assert message.image_id == image_id
    np.testing.assert_array_equal(into, image)


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_random_parts_are_refused(parts: list[bytes]) -> None:
    put_or_refuse(MessageReader(LAYOUT), parts)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bsr_m-1.1", "array-1.0"]) | json_values,
            st.integers(0, 2**64) | json_values,
            st.sampled_from(["none", "lz4", "bitshuffle_lz4"]) | json_values,
            channels,
            st.binary(max_size=120),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_headers_that_say_anything_do_not_break_the_reader(messages: list[Any]) -> None:
    reader = MessageReader(LAYOUT)
    for htype, image_id, dh_compression, channel, data in messages:
        header = {"htype": htype, "pulse_id": image_id, "frame": image_id, "dh_compression": dh_compression}
        head = json.dumps(header | (channel if htype == "array-1.0" else {})).encode()
        put_or_refuse(reader, [head, json.dumps({"channels": [channel]}).encode(), data])
        put_or_refuse(reader, [head, b"", data])
        put_or_refuse(reader, [head, data, data])
        put_or_refuse(reader, [head, data])


@given(
    WIRES, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.integers(0, 20)
)
def test_damaged_data_stay_inside_their_image(
    wire: MessageForm, damage: list[tuple[int, int]], cut: int
) -> None:
    image = np.arange(45, dtype=np.uint16).reshape(5, 9)
    data = bytearray(compress(image, wire))
    for at, value in damage:
        data[at % len(data)] = value
    put_or_refuse(MessageReader(LAYOUT), pack(bytes(data[: len(data) - cut]), LAYOUT, 1, wire))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"shape": [9, 5]}, "shape [9, 5] where the config has [5, 9]"),
        ({"shape": None}, "shape None where the config has [5, 9]"),
        ({"type": "int16"}, "type 'int16' where the config has uint16"),
        ({"frame": True}, "frame True is no unsigned 64-bit integer"),
        ({"frame": -1}, "frame -1 is no unsigned 64-bit integer"),
        ({"frame": 2**64}, f"frame {2**64} is no unsigned 64-bit integer"),
        ({"encoding": "middle"}, "encoding 'middle' is neither little nor big"),
        ({"compression": "zip"}, "compression 'zip' is none of none, bitshuffle_lz4, lz4"),
        ({"htype": "dimage-1.0"}, "htype 'dimage-1.0' is neither bsr_m-1.1 nor array-1.0"),
        ({"htype": "x" * 1000}, "htype 'xxx"),
    ],
)
def test_a_refusal_says_what_came_and_what_was_expected(header: dict[str, Any], reason: str) -> None:
    good = {"htype": "array-1.0", "shape": [5, 9], "type": "uint16", "frame": 1}
    with pytest.raises(BadMessage) as refused:
        MessageReader(LAYOUT).read([json.dumps(good | header).encode(), b""])
    assert str(refused.value).startswith(reason)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("address", "ok"),
    [
        ("tcp://camera-1.psi.ch:9999", True),
        ("tcp://[::1]:9999", True),
        ("tcp://camera", False),
        ("tcp://camera:0", False),
        ("tcp://camera:65536", False),
        ("tcp://*:9999", False),
        ("ipc:///tmp/camera", False),
        ("tcp://camera:9999/x", False),
        ("camera:9999", False),
    ],
)
def test_an_address_is_scheme_host_and_port(address: str, ok: bool) -> None:
    if ok:
        assert DaqConfig.parse(VALUES | {"stream_addresses": [address]}).stream_addresses == [address]
    else:
        with pytest.raises(InvalidConfig, match="must be like tcp://host:port"):
            DaqConfig.parse(VALUES | {"stream_addresses": [address]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream_addresses": []}, "stream_addresses is empty"),
        ({"stream_addresses": ["tcp://a:1", "tcp://a:1"]}, "names an address twice"),
        ({"stream_socket": "push"}, "stream_socket"),
        ({"n_modules": 2}, "n_modules is 2"),
        ({"module_positions": {"0": [0, 0, 8, 4]}}, "module_positions must be {}"),
        ({"bit_depth": 12}, "bit_depth 12"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        DaqConfig.parse(VALUES | change)


def test_a_stream_has_no_packets_to_record(tmp_path: Path) -> None:
    config = DaqConfig.parse(VALUES)
    with pytest.raises(InvalidRequest, match="bsread sends no UDP packets"):
        record(config, tmp_path / "recording")
    assert not (tmp_path / "recording").exists()
    with pytest.raises(InvalidRequest, match="bsread sends no UDP packets"):
        Simulator(config).packets(1)
