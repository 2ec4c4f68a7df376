"""Runs into compressed files: every pixel comes back, a lost writer's file too, without another receiver."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import hdf5plugin
import pytest

from daq_core.state.status import AcquisitionState, DaqState
from tests.daq.loopback import assert_holds, jungfrau, loopback_daq


async def test_a_running_daq_takes_up_each_compression_without_another_receiver(tmp_path: Path) -> None:
    async with loopback_daq(jungfrau(2, rows=64, gap=3), tmp_path) as bench:
        receiver = bench.receiver
        for compression, name in (("bitshuffle-lz4", "lz4"), ("bitshuffle-zstd", "zstd"), ("none", "")):
            await bench.daq.configure({"compression": compression, "compression_threads": 2})
            await bench.daq.reconfigured()
            with h5py.File(await bench.perfect_run(40)) as file:
                filters = file["entry/data/data"]._filters
            codec = {"lz4": 2, "zstd": 3}.get(name)
            assert (filters.get(str(hdf5plugin.Bitshuffle.filter_id)) or [None] * 5)[4] == codec
        assert bench.receiver == receiver


async def test_a_killed_writers_compressed_file_holds_every_image_that_was_counted(tmp_path: Path) -> None:
    config = jungfrau(rows=64, compression="bitshuffle-lz4")
    async with loopback_daq(config, tmp_path) as bench:
        path = await bench.start(0)
        ids = bench.next_ids(20)
        await bench.send(ids)
        await bench.until_written(20)
        os.kill(bench.writer, signal.SIGKILL)
        assert (await bench.end()).acquisition.state is AcquisitionState.FAILED
        await bench.until(DaqState.READY)  # repaired
        assert_holds(path, bench.simulator, ids)


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
async def test_a_full_disk_is_foreseen_only_where_the_size_is_known(tmp_path: Path, compression: str) -> None:
    """How small images become nobody knows before; the run fails when the disk is full, not before."""
    async with loopback_daq(jungfrau(rows=512, compression=compression), tmp_path) as bench:
        too_many = 2**31 - 1  # 2 PB
        if compression == "none":
            with pytest.raises(ValueError, match="Not enough space"):
                await bench.start(too_many)
        else:
            await bench.start(too_many)
            assert "as far as compression does not help" in bench.daq.snapshot.health.low_space
            await bench.stop()
