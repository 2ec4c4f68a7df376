"""A list of senders: packets of others are counted as foreign and change no pixel."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from daq_core.errors import InvalidConfig
from daq_core.linux.network import parse_networks
from daq_core.state.options import DaqOptions
from ioc.program.ports import LOOPBACK
from tests.daq.loopback import Bench, assert_holds, eiger, jungfrau, loopback_daq

STRANGER = "127.0.0.66"


def send_as(address: str, bench: Bench, datagrams: list[bytes], port: int = 0) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 0))
        for datagram in datagrams:
            sender.sendto(datagram, (LOOPBACK, bench.simulator.ports[port]))


def forged(bench: Bench, image_id: int) -> list[bytes]:
    """Return the packets of an image with every pixel spoilt."""
    (packets,) = bench.simulator.packets(image_id)
    spoilt = np.array(packets)
    spoilt[:, 48:] ^= 0xFF
    return [bytes(packet) for packet in spoilt]


@pytest.mark.parametrize("allowed", ["127.0.0.1", "10.0.0.0/8,127.0.0.0/29", "127.0.0.1/32,192.0.2.0/24"])
async def test_a_stranger_can_neither_fill_an_image_nor_spoil_one(tmp_path: Path, allowed: str) -> None:
    """Its packets come before, between and after those of the detector."""
    async with loopback_daq(jungfrau(rows=16), tmp_path, udp_sources=parse_networks(allowed)) as bench:
        path, ids = await bench.start(3), bench.next_ids(3)
        before = bench.counters()
        n_foreign = n_sent = 0
        for image_id in ids:
            (good,) = bench.simulator.packets(image_id)
            for bad, packet in zip(forged(bench, image_id), good, strict=True):
                send_as(STRANGER, bench, [bad])
                send_as(LOOPBACK, bench, [bytes(packet)])
                send_as(STRANGER, bench, [bad, b"junk"])
                n_foreign, n_sent = n_foreign + 3, n_sent + 4
        assert (await bench.end()).acquisition.message == "Completed."
        after = await bench.counted(before.packets_received + n_sent)
        assert_holds(path, bench.simulator, ids)
        assert after.packets_foreign - before.packets_foreign == n_foreign
        assert after.packets_placed - before.packets_placed == n_sent - n_foreign
        assert after.packets_malformed == before.packets_malformed
        await bench.perfect_run()


async def test_a_stranger_alone_is_as_good_as_silence(tmp_path: Path) -> None:
    async with loopback_daq(eiger(16), tmp_path, udp_sources=parse_networks("127.0.0.1")) as bench:
        await bench.start(1)
        packets = [bytes(packet) for packet in bench.simulator.packets(1)[0]]
        send_as(STRANGER, bench, packets)
        counters = await bench.counted(len(packets))
        assert (counters.packets_foreign, counters.packets_placed) == (len(packets), 0)
        assert bench.status.acquisition.n_write_requested == 0
        await bench.stop()


async def test_without_a_list_everybody_is_taken(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(rows=16), tmp_path) as bench:
        path, ids = await bench.start(1), bench.next_ids(1)
        send_as(STRANGER, bench, [bytes(packet) for packet in bench.simulator.packets(ids[0])[0]])
        await bench.end()
        assert_holds(path, bench.simulator, ids)
        assert bench.counters().packets_foreign == 0


def test_a_list_of_ipv6_addresses_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="IPv4"):
        DaqOptions(udp_sources=parse_networks("fd00::/8")).check(jungfrau())
