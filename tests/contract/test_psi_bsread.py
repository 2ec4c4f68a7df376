"""PSI's own bsread package is the judge: what its sender sends is stored, and its reader reads ours."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from daq_core.receiving.stream_messages import MessageForm, compress
from daq_core.simulating.simulator import Simulator
from tests.contract.test_bsread import SHAPE, bsread, camera, picture, send, sender
from tests.daq.loopback import eventually, loopback_daq

psi = pytest.importorskip("bsread", reason="psi-bsread's bitshuffle has no wheels for Python 3.13 yet")
sender_module = pytest.importorskip("bsread.sender")

COMPRESSIONS = (None, "none", "lz4", "bitshuffle_lz4")
REFUSED_TYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bool")


@contextmanager
def psi_sender(address: str, **settings: Any) -> Iterator[Any]:
    """A sender as PSI's cameras have it. What is still on its way when it closes, it loses."""
    there = urlsplit(address)
    with sender_module.Sender(
        address=f"tcp://{there.hostname}", port=there.port, send_timeout=30_000, **settings
    ) as out:
        yield out


async def send_with(out: Any, pulse_id: int, image: npt.NDArray[Any]) -> None:
    """Send an image as the first of two channels."""
    data = {"CAM:FPICTURE": image, "CAM:EXPOSURE": 0.25}
    await asyncio.to_thread(out.send, data=data, pulse_id=pulse_id)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
async def test_all_that_psis_sender_can_send_is_stored_exactly(dtype: str, tmp_path: Path) -> None:
    """Every compression of data and of headers, each at an address of its own, in both byte orders."""
    settings = list(product(COMPRESSIONS, COMPRESSIONS))
    config = camera(len(settings), bit_depth=8 * np.dtype(dtype).itemsize)
    n_images = 2 * len(settings)
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(n_images)
        with ExitStack() as open_senders:
            for k, (address, (header, data)) in enumerate(
                zip(config.stream_addresses, settings, strict=True)
            ):
                out = psi_sender(address, data_header_compression=header, data_compression=data)
                out = open_senders.enter_context(out)
                for pulse_id, order in ((2 * k, "<"), (2 * k + 1, ">")):
                    ordered = picture(pulse_id, dtype).astype(np.dtype(dtype).newbyteorder(order))
                    await send_with(out, pulse_id, ordered)
            assert (await bench.end(30)).acquisition.message == "Completed."
        assert bench.counters().packets_malformed == 0
    with h5py.File(path) as file:
        stored = dict(zip(file["entry/data/image_id"][:].tolist(), file["entry/data/data"][:], strict=True))
    assert sorted(stored) == list(range(n_images))
    for pulse_id, image in stored.items():
        np.testing.assert_array_equal(image, picture(pulse_id, dtype), err_msg=str(settings[pulse_id // 2]))


async def test_each_type_that_is_not_the_configs_is_refused_by_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = camera(len(REFUSED_TYPES))
    async with loopback_daq(config, tmp_path) as bench:
        with ExitStack() as open_senders:
            for n, (dtype, address) in enumerate(zip(REFUSED_TYPES, config.stream_addresses, strict=True)):
                out = open_senders.enter_context(psi_sender(address, data_compression="lz4"))
                await send_with(out, n, np.zeros(SHAPE, dtype))
            await bench.counted(len(REFUSED_TYPES), 30)
        assert bench.counters().packets_malformed == len(REFUSED_TYPES)
    assert f"type {REFUSED_TYPES[0]!r} where the config has uint16" in capfd.readouterr().err


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("encoding", ["little", "big"])
async def test_the_size_before_lz4_data_and_headers_may_be_in_either_byte_order(
    order: str, encoding: str, tmp_path: Path
) -> None:
    """PSI's C++ has it big-endian, its Python little-endian; neither goes by the pixels' order."""
    config = camera()
    image = picture(1)
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(1)
        data = compress(image, MessageForm(compression="lz4", encoding=encoding))
        message = bsread(
            1, image, struct.pack(order + "I", image.nbytes) + data[4:], compression="lz4", encoding=encoding
        )
        message[0] = message[0].replace(b"{", b'{"dh_compression": "lz4", ', 1)
        header = compress(np.frombuffer(message[1], np.uint8), MessageForm(compression="lz4"))
        message[1] = struct.pack(order + "I", len(message[1])) + header[4:]
        with sender(config) as camera_socket:
            await send(camera_socket, message)
            await bench.end(30)
        assert bench.counters().packets_malformed == 0
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], image)


@pytest.mark.parametrize(
    ("compression", "encoding"),
    # Its reader looks for a big-endian size before big-endian lz4 data, which its own sender never sends.
    [
        ("none", "little"),
        ("none", "big"),
        ("lz4", "little"),
        ("bitshuffle_lz4", "little"),
        ("bitshuffle_lz4", "big"),
    ],
)
async def test_psis_reader_reads_what_the_simulated_camera_sends(compression: Any, encoding: Any) -> None:
    config = camera()
    simulator = Simulator(config, wire=MessageForm(compression=compression, encoding=encoding))
    address = urlsplit(config.stream_addresses[0])
    source = psi.Source(host=address.hostname, port=address.port, mode=psi.PULL, receive_timeout=30_000)
    received: list[Any] = []

    def read() -> None:
        with source as stream:
            received.extend(stream.receive() for _ in range(3))

    reading = asyncio.create_task(asyncio.to_thread(read))
    assert (await asyncio.to_thread(simulator.send, 3, 100, first_id=7)).n_packets == 3
    await reading
    await eventually(lambda: len(received) == 3)
    for k, message in enumerate(received):
        assert message.data.pulse_id == 7 + k
        np.testing.assert_array_equal(message.data.data["image"].value, simulator.image(7 + k))
