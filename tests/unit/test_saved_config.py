"""Which config a service starts with, and that what was set on it is kept."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig, Unavailable
from ioc.saved_config import SavedConfig
from tests.service import JUNGFRAU_2
from tests.simulated_daq import SimulatedDaq

GIVEN = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 50000})
SET = GIVEN.merge({"image_timeout_s": 0.25})


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about within 10 s")


@pytest.fixture
def saved(tmp_path: Path) -> SavedConfig:
    config_file = tmp_path / "detector.json"
    config_file.write_text(GIVEN.as_json())
    hour_ago = time.time() - 3600
    os.utime(config_file, (hour_ago, hour_ago))
    return SavedConfig(config_file, tmp_path)


def test_the_first_start_takes_the_config_file(saved: SavedConfig) -> None:
    assert saved.choose(fresh=False) == GIVEN


def test_what_was_set_wins_over_an_older_file(saved: SavedConfig) -> None:
    saved.save(SET)
    assert saved.choose(fresh=False) == SET


def test_a_file_edited_later_wins_over_what_was_set(saved: SavedConfig) -> None:
    saved.save(SET)
    later = time.time() + 1
    os.utime(saved.config_file, (later, later))
    assert saved.choose(fresh=False) == GIVEN


def test_fresh_takes_the_file_at_later_starts_too(saved: SavedConfig) -> None:
    saved.save(SET)
    assert saved.choose(fresh=True) == GIVEN
    assert saved.choose(fresh=False) == GIVEN


def test_what_was_set_belongs_to_its_config_file_alone(saved: SavedConfig, tmp_path: Path) -> None:
    saved.save(SET)
    other = tmp_path / "other.json"
    other.write_text(GIVEN.as_json())
    os.utime(other, (0, 0))
    assert SavedConfig(other, tmp_path).choose(fresh=False) == GIVEN


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", "null", json.dumps({"config_file": 1}), b"\xff".decode("latin-1")]
)
def test_an_unusable_saved_config_is_passed_over(saved: SavedConfig, kept: str) -> None:
    saved.path.write_text(kept, encoding="latin-1")
    assert saved.choose(fresh=False) == GIVEN


def test_a_saved_config_that_is_no_longer_legal_is_passed_over(saved: SavedConfig) -> None:
    illegal = {**SET.as_dict(), "bit_depth": 7}
    saved.path.write_text(json.dumps({"config_file": str(saved.config_file), "config": illegal}))
    assert saved.choose(fresh=False) == GIVEN


def test_an_illegal_config_file_is_refused_whatever_was_set(saved: SavedConfig) -> None:
    saved.save(SET)
    saved.config_file.write_text("{}")
    with pytest.raises(InvalidConfig, match=r"detector\.json: Config errors: missing"):
        saved.choose(fresh=False)


async def test_every_accepted_config_is_kept(saved: SavedConfig) -> None:
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        assert not saved.path.exists()
        for timeout_s in (0.25, 0.75):
            await daq.configure({"image_timeout_s": timeout_s})
            await daq.reconfigured()
        await eventually(lambda: saved.choose(fresh=False).image_timeout_s == 0.75)
        keeping.cancel()


async def test_a_config_set_in_the_last_moment_is_kept(saved: SavedConfig) -> None:
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False) == SET


def test_a_kept_config_that_cannot_be_removed_is_one_clear_line(saved: SavedConfig) -> None:
    saved.path.mkdir()
    with pytest.raises(Unavailable, match=r"config\.json cannot be removed for --fresh"):
        saved.choose(fresh=True)


async def test_a_full_disk_does_not_end_the_service(
    saved: SavedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    saved.path.with_suffix(".new").symlink_to("/dev/full")
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        await eventually(lambda: "cannot be saved" in caplog.text)
        assert not keeping.done()
        keeping.cancel()
    assert saved.choose(fresh=False) == GIVEN
