"""Whole images over real ZeroMQ sockets, through the Daq, to the file: every format, every pixel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import zmq

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.receiving.stream_messages import MessageForm, compress
from daq_core.simulating.simulator import Simulator
from ioc.program.ports import LOOPBACK, free_ports
from tests.daq.loopback import Bench, assert_holds, eventually, jungfrau, loopback_daq, standing_still

SHAPE = (35, 51)  # odd, so that an image does not end with a whole block of bitshuffle


def camera(n_addresses: int = 1, *, bit_depth: int = 16, **changes: Any) -> DaqConfig:
    port = free_ports(n_addresses)
    values = {
        "detector_name": "CAM",
        "detector_type": "bsread",
        "bit_depth": bit_depth,
        "image_pixel_height": SHAPE[0],
        "image_pixel_width": SHAPE[1],
        "n_modules": 1,
        "start_udp_port": 0,
        "writer_user_id": 0,
        "module_positions": {},
        "ram_buffer_gb": 0.01,
        "stream_addresses": [f"tcp://{LOOPBACK}:{port + i}" for i in range(n_addresses)],
    }
    return DaqConfig.parse(values | changes)


def picture(seed: int, dtype: str = "uint16") -> npt.NDArray[Any]:
    """Pixels of all values: a swapped byte, row or column would show."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, SHAPE, dtype, endpoint=True)


def bsread(
    pulse_id: object, image: npt.NDArray[Any], data: bytes | None = None, **channel: Any
) -> list[bytes]:
    """A message as bsread's own sender makes it, written down here once more, independently."""
    header = {"name": "CAM:FPICTURE", "type": image.dtype.name, "shape": [image.shape[1], image.shape[0]]}
    data_header = json.dumps({"htype": "bsr_d-1.1", "channels": [header | channel, {"name": "OTHER"}]})
    main = {"htype": "bsr_m-1.1", "pulse_id": pulse_id, "global_timestamp": {"sec": 1, "ns": 2}, "hash": "0"}
    blob = image.tobytes() if data is None else data
    return [json.dumps(main).encode(), data_header.encode(), blob, b"", b"\0" * 8, b""]


def array(frame: object, image: npt.NDArray[Any], data: bytes | None = None, **header: Any) -> list[bytes]:
    head = {"htype": "array-1.0", "shape": list(image.shape), "type": image.dtype.name, "frame": frame}
    return [json.dumps(head | header).encode(), image.tobytes() if data is None else data]


FORMATS: dict[str, Any] = {"bsread": bsread, "array-1.0": array}


@contextmanager
def sender(config: DaqConfig, which: int = 0) -> Iterator[zmq.Socket[bytes]]:
    """A camera's socket at one of the config's addresses; it sends when somebody is there."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
        camera.sndtimeo, camera.linger = 5000, 5000
        camera.bind(config.stream_addresses[which])
        yield camera


async def send(camera: zmq.Socket[bytes], *messages: list[bytes]) -> None:
    for message in messages:
        await asyncio.to_thread(camera.send_multipart, message)


async def stored(bench: Bench, path: Path) -> dict[int, npt.NDArray[Any]]:
    """End the run; return image id → pixels."""
    await bench.stop()
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert not data["status"][:].any()
        assert not data["missing_packets"][:].any()
        return dict(zip(data["image_id"][:].tolist(), data["data"][:], strict=True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
async def test_every_way_to_send_pixels_arrives_exactly(dtype: str, tmp_path: Path) -> None:
    wires = [MessageForm(*w) for w in product(FORMATS, ("none", "bitshuffle_lz4", "lz4"), ("little", "big"))]
    config = camera(bit_depth=8 * np.dtype(dtype).itemsize)
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(len(wires))
        with sender(config) as camera_socket:
            for image_id, wire in enumerate(wires):
                keys = {"encoding": wire.encoding, "compression": wire.compression}
                image = picture(image_id, dtype)
                data = compress(image, wire)
                await send(camera_socket, FORMATS[wire.format](image_id, image, data, **keys))
            assert (await bench.end()).acquisition.n_write_completed == len(wires)
    with h5py.File(path) as file:
        assert file["entry/data/data"].dtype == dtype
        assert file["entry/data/image_id"][:].tolist() == list(range(len(wires)))
        for image_id, image in enumerate(file["entry/data/data"]):
            np.testing.assert_array_equal(image, picture(image_id, dtype), err_msg=str(wires[image_id]))


@pytest.mark.parametrize(
    ("kind", "n_addresses", "wire"),
    [
        ("pull", 1, MessageForm()),
        ("pull", 3, MessageForm(compression="bitshuffle_lz4", encoding="big")),
        ("sub", 1, MessageForm("array-1.0", compression="lz4")),
    ],
)
async def test_the_simulated_camera_is_stored_exactly(
    kind: str, n_addresses: int, wire: MessageForm, tmp_path: Path
) -> None:
    config = camera(n_addresses, bit_depth=8, stream_socket=kind, detector_type="pco")
    simulator = Simulator(config, wire=wire)
    async with loopback_daq(config, tmp_path) as bench:
        for first in (1, 31):  # the receiver connects again
            path = await bench.start(30)
            report = await asyncio.to_thread(simulator.send, 30, 300, first_id=first)
            assert (report.n_images, report.n_packets, report.n_refused) == (30, 30, 0)
            assert (await bench.end()).acquisition.message == "Completed."
            with h5py.File(path) as file:
                ids = file["entry/data/image_id"][:].tolist()
            assert sorted(ids) == list(range(first, first + 30))
            assert_holds(path, simulator, ids)
        counters = bench.counters()
        assert (counters.packets_received, counters.packets_placed) == (60, 60)


async def test_several_publishers_are_subscribed_to(tmp_path: Path) -> None:
    config = camera(2, stream_socket="sub")
    simulator = Simulator(config)
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(20)
        assert (await asyncio.to_thread(simulator.send, 20, 200)).n_refused == 0
        await bench.end()
        assert sorted(h5py.File(path)["entry/data/image_id"][:].tolist()) == list(range(1, 21))


async def test_a_camera_at_an_address_of_ipv6_is_heard(tmp_path: Path) -> None:
    config = camera(stream_addresses=[f"tcp://[::1]:{free_ports()}"])
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(1)
        with zmq.Context() as context, context.socket(zmq.PUSH) as out:
            out.ipv6, out.linger, out.sndtimeo = True, 5000, 5000
            try:
                out.bind(config.stream_addresses[0])
            except zmq.ZMQError as error:
                pytest.skip(f"no IPv6 here: {error}")
            await send(out, bsread(7, picture(7)))
            await bench.end(30)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], picture(7))


async def test_what_is_no_image_of_the_config_is_counted_named_and_not_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = camera()
    x = picture(1)
    squeezed = compress(x, MessageForm(compression="bitshuffle_lz4"))
    bad = [
        [b""],
        [b"garbage"],
        [b"[1]", b"2"],
        [b'{"htype":"bsr_m-1.1","pulse_id":1}'],
        [b"[" * 100_000, b""],
        bsread(1, x.T),
        bsread(1, x.astype("int16")),
        bsread(1, x.astype("uint32")),
        bsread(1, x.astype("float32")),
        bsread(1, x[:-1]),
        bsread(1, x, x.tobytes()[:-1]),
        bsread(1, x, b""),
        bsread(1, x, encoding="middle"),
        bsread(1, x, compression="zip"),
        bsread(1, x, squeezed[:-1], compression="bitshuffle_lz4"),
        bsread(1, x, squeezed[:11], compression="bitshuffle_lz4"),
        bsread(1, x, b"\0\0\0\1" + squeezed[4:], compression="bitshuffle_lz4"),
        bsread(1, x, squeezed[:8] + b"\x7f\xff\xff\xff" + squeezed[12:], compression="bitshuffle_lz4"),
        bsread(1, x, b"\xff" * 5000, compression="lz4"),
        array(1, x.T),
        array(1, x, type="uint8"),
        array(1, x, b"x"),
        array(1, x)[:1],
        *(make(bad_id, x) for make in (bsread, array) for bad_id in (True, -1, None, "7", 1.5, 2**64)),
    ]
    n_late = 8  # id 1 is stored meanwhile: damaged data are not looked at again
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(0)
        with sender(config) as camera_socket:
            await send(camera_socket, *bad)
            with standing_still([bench.receiver]):  # no pause, after which id 1 would be another image
                await send(camera_socket, bsread(1, x), *bad, bsread(2**64 - 1, x))
            counters = await bench.counted(2 * len(bad) + 2)
            assert counters.packets_malformed == 2 * len(bad) - n_late
            assert counters.packets_late == n_late
            await bench.until_written(2)
        images = await stored(bench, path)
    assert list(images) == [1, 2**64 - 1]
    np.testing.assert_array_equal(images[1], x)
    np.testing.assert_array_equal(images[2**64 - 1], x)
    lines = [line for line in capfd.readouterr().err.splitlines() if "refused" in line]
    assert 1 <= len(lines) <= 3  # not one a message
    assert config.stream_addresses[0] in lines[0]


async def test_the_log_names_the_sender_and_what_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        with sender(config) as camera_socket:
            await send(camera_socket, bsread(1, picture(1).T))
            await bench.counted(1)
    reason = "shape [35, 51] where the config has [51, 35]"
    assert f"refused a message from {config.stream_addresses[0]}: {reason}" in capfd.readouterr().err


async def test_a_peer_that_does_not_speak_zeromq_harms_nobody_and_the_camera_is_heard_after_it(
    tmp_path: Path,
) -> None:
    """Random bytes, half a greeting, silence, at the address that the receiver connects to."""
    config, chance = camera(), random.Random(7)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    said = [chance.randbytes(n) for n in (1, 64, 1000)] + [
        greeting[:20],
        greeting + chance.randbytes(300),
        b"",
    ]

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(said[len(heard) % len(said)])
            heard.append(await reader.read(100))
        writer.close()

    heard: list[bytes] = []
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(1)
        port = int(config.stream_addresses[0].rpartition(":")[2])
        async with await asyncio.start_server(speak, LOOPBACK, port):
            await eventually(lambda: len(heard) >= len(said), 60)
        with sender(config) as camera_socket:
            await send(camera_socket, bsread(1, picture(1)))
            await bench.end(30)
        assert bench.status.acquisition.message == "Completed."
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], picture(1))


async def test_an_empty_data_header_means_the_one_before(tmp_path: Path) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(0)
        with sender(config) as camera_socket:
            messages = [bsread(i, picture(i)) for i in range(1, 4)]
            messages[1][1] = b""
            other_hash = bsread(4, picture(4))
            other_hash[0] = other_hash[0].replace(b'"hash": "0"', b'"hash": "1"')
            other_hash[1] = b""
            await send(camera_socket, *messages, other_hash)
            counters = await bench.counted(4)
            assert counters.packets_malformed == 1
            await bench.until_written(3)
        images = await stored(bench, path)
    assert list(images) == [1, 2, 3]
    np.testing.assert_array_equal(images[2], picture(2))


async def test_a_compressed_data_header_is_read(tmp_path: Path) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(2)
        with sender(config) as camera_socket:
            for i, compression in enumerate(("bitshuffle_lz4", "lz4"), 1):
                message = bsread(i, picture(i))
                header = json.loads(message[0]) | {"dh_compression": compression}
                message[0] = json.dumps(header).encode()
                message[1] = compress(
                    np.frombuffer(message[1], np.uint8), MessageForm(compression=compression)
                )
                await send(camera_socket, message)
            assert (await bench.end()).acquisition.message == "Completed."
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], [picture(1), picture(2)])


async def test_an_image_sent_again_is_late_and_one_from_before_the_run_is_not_stored(tmp_path: Path) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        with sender(config) as camera_socket:
            await send(camera_socket, *(bsread(i, picture(i)) for i in (1, 2, 3)))
            await bench.counted(3)
            path = await bench.start(0)
            with standing_still([bench.receiver]):  # after a pause they would be of a camera that began anew
                await send(camera_socket, *(bsread(i, picture(i)) for i in (3, 4, 4, 3, 5)))
            counters = await bench.counted(8)
            assert (counters.packets_late, counters.packets_placed) == (2, 6)
            await bench.until_written(3)
        assert list(await stored(bench, path)) == [3, 4, 5]


@pytest.mark.parametrize("n_images", [1, 5, 60])
async def test_a_camera_that_begins_anew_in_a_run_loses_nothing(n_images: int, tmp_path: Path) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(3 * n_images)
        for burst in range(3):
            with sender(config) as camera_socket:
                await send(camera_socket, *(bsread(i, picture(100 * burst + i)) for i in range(n_images)))
                await bench.counted((burst + 1) * n_images)
            await asyncio.sleep(0.5)  # the camera's, which is started again
        assert (await bench.end(60)).acquisition.message == "Completed."
        assert bench.counters().id_restarts == 2
    with h5py.File(path) as file:
        assert file["entry/data/image_id"][:].tolist() == [*range(n_images)] * 3
        for row, pixels in enumerate(file["entry/data/data"]):
            burst, i = divmod(row, n_images)
            np.testing.assert_array_equal(pixels, picture(100 * burst + i))


async def test_a_camera_that_began_anew_while_the_receiver_stood_still_loses_nothing(tmp_path: Path) -> None:
    """Its messages waited, so no pause was to be seen: a second one with an old id is the proof."""
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        await bench.start(20)
        with sender(config) as camera_socket:
            await send(camera_socket, bsread(0, picture(0)))
            await bench.counted(1)
            with standing_still([bench.receiver]):
                ids = [*range(1, 10), *range(10)]
                await send(camera_socket, *(bsread(i, picture(i)) for i in ids))
            await bench.counted(20)
            assert (await bench.end(60)).acquisition.n_write_completed == 20


async def test_a_sender_that_comes_back_is_heard_again(tmp_path: Path) -> None:
    config = camera()
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(2)
        for i in (1, 2):
            with sender(config) as camera_socket:
                await send(camera_socket, array(i, picture(i)))
            await bench.counted(i)
        await bench.end()
    with h5py.File(path) as file:
        assert file["entry/data/image_id"][:].tolist() == [1, 2]


async def test_the_config_changes_to_a_stream_and_back_while_running(tmp_path: Path) -> None:
    udp, stream = jungfrau(), camera()
    async with loopback_daq(udp, tmp_path) as bench:
        await bench.perfect_run(5)
        for config in (stream, udp):
            began = time.monotonic()
            await bench.daq.configure(config.as_dict())
            await bench.daq.reconfigured()
            assert time.monotonic() - began < 5
            await bench.perfect_run(5)


async def test_the_host_of_an_address_that_nobody_knows_is_a_clear_error(tmp_path: Path) -> None:
    config = camera(stream_addresses=["tcp://no-such-camera.invalid:9999"])
    with pytest.raises(Unavailable, match=r"no-such-camera\.invalid is not known"):
        async with loopback_daq(config, tmp_path):
            pass


async def test_that_nobody_listens_is_counted_and_a_taken_address_refused() -> None:
    config = camera()
    report = await asyncio.to_thread(Simulator(config).send, 1, 0)
    assert (report.n_images, report.n_packets, report.n_refused) == (1, 0, 1)
    with sender(config), pytest.raises(Unavailable, match=r"cannot send at tcp://.*: address already in use"):
        await asyncio.to_thread(Simulator(config).send, 1, 0)
