"""Which config a service starts with, and that what was set on it is kept."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig, Unavailable
from ioc.service import saved_config
from ioc.service.saved_config import SavedConfig
from tests.daq.simulated_daq import SimulatedDaq
from tests.processes.service import JUNGFRAU_2

GIVEN = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 50000})
SET = GIVEN.merge({"image_timeout_s": 0.25})
LATER = GIVEN.merge({"image_timeout_s": 0.75})


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
    assert saved.choose(fresh=False)[0] == GIVEN


def test_what_was_set_wins_over_an_older_file(saved: SavedConfig) -> None:
    saved.save(SET)
    assert saved.choose(fresh=False)[0] == SET


def test_a_file_edited_later_wins_over_what_was_set(saved: SavedConfig) -> None:
    saved.save(SET)
    later = time.time() + 1
    os.utime(saved.config_file, (later, later))
    assert saved.choose(fresh=False)[0] == GIVEN


def test_fresh_takes_the_file_at_later_starts_too(saved: SavedConfig) -> None:
    saved.save(SET)
    assert saved.choose(fresh=True)[0] == GIVEN
    assert saved.choose(fresh=False)[0] == GIVEN


def test_what_was_set_belongs_to_its_config_file_alone(saved: SavedConfig, tmp_path: Path) -> None:
    saved.save(SET)
    other = tmp_path / "other.json"
    other.write_text(GIVEN.as_json())
    os.utime(other, (0, 0))
    assert SavedConfig(other, tmp_path).choose(fresh=False)[0] == GIVEN


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", "null", json.dumps({"config_file": 1}), b"\xff".decode("latin-1")]
)
def test_an_unusable_saved_config_is_passed_over(saved: SavedConfig, kept: str) -> None:
    saved.path.write_text(kept, encoding="latin-1")
    assert saved.choose(fresh=False)[0] == GIVEN


def test_a_config_that_was_kept_without_a_checksum_is_taken(saved: SavedConfig) -> None:
    saved.path.write_text(json.dumps({"config_file": str(saved.config_file), "config": SET.as_dict()}))
    assert saved.choose(fresh=False) == [SET, GIVEN]
    assert saved.trouble == ""


@pytest.mark.parametrize(
    ("old", "new"), [("0.25", "0.75"), ('"checksum"', '"chacksum"'), ("detector.json", "d")]
)
def test_a_flipped_digit_is_another_legal_config_and_never_taken(
    saved: SavedConfig, old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved.save(SET)
    whole = saved.path.read_text()
    assert old in whole
    saved.path.write_text(whole.replace(old, new))
    assert saved.choose(fresh=False) == [GIVEN]
    assert f"the config in {saved.path} is unusable" in saved.trouble
    assert saved.trouble in caplog.text


def test_a_damaged_config_gives_way_to_the_one_before_it(saved: SavedConfig) -> None:
    saved.save(SET)
    saved.save(LATER)
    saved.path.write_text(saved.path.read_text().replace("0.75", "0.95"))
    assert saved.choose(fresh=False) == [SET, GIVEN]
    assert saved.trouble.endswith("The one before it is in use.")


def test_a_service_killed_between_two_renames_finds_the_config_before(saved: SavedConfig) -> None:
    saved.save(SET)
    saved.save(LATER)
    saved.path.unlink()
    assert saved.choose(fresh=False) == [SET, GIVEN]


def refusing(*refused: DaqConfig) -> Callable[[DaqConfig], None]:
    def check(config: DaqConfig) -> None:
        if config in refused:
            raise Unavailable(f"No room for {config.image_timeout_s}.")

    return check


def test_a_config_that_cannot_run_gives_way_to_the_one_before_it_and_then_to_the_file(
    saved: SavedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    saved.save(SET)
    saved.save(LATER)
    assert saved.choose(fresh=False, check=refusing()) == [LATER, SET, GIVEN]
    assert saved.trouble == ""
    assert saved.choose(fresh=False, check=refusing(LATER)) == [SET, GIVEN]
    assert saved.trouble.endswith("cannot run: No room for 0.75. The one before it is in use.")
    assert saved.choose(fresh=False, check=refusing(LATER, SET)) == [GIVEN]
    assert saved.trouble.endswith(f"No room for 0.25. {saved.config_file} is in use.")
    assert saved.trouble in caplog.text


def test_a_config_file_that_cannot_run_is_refused(saved: SavedConfig) -> None:
    with pytest.raises(Unavailable, match="No room"):
        saved.choose(fresh=False, check=refusing(GIVEN))


def test_a_mistyped_key_of_the_config_file_is_told_while_that_is_in_use(saved: SavedConfig) -> None:
    values = {**GIVEN.as_dict(), "compresion": "bitshuffle-lz4", "of_std_daq_alone": 1}
    saved.config_file.write_text(json.dumps(values))
    assert saved.choose(fresh=False) == [GIVEN]
    assert saved.trouble.endswith("keys that are ignored: compresion (is compression meant?).")
    saved.trouble = ""
    saved.save(SET)
    assert saved.choose(fresh=False)[0] == SET
    assert saved.trouble == ""


def test_the_config_before_gives_way_to_a_file_edited_since(saved: SavedConfig) -> None:
    saved.save(SET)
    now = time.time()
    os.utime(saved.path, (now - 60, now - 60))
    os.utime(saved.config_file, (now - 30, now - 30))
    saved.save(LATER)
    assert saved.choose(fresh=False) == [LATER, GIVEN]


def test_saving_a_config_again_keeps_the_one_before_it(saved: SavedConfig) -> None:
    for config in (SET, LATER, LATER):
        saved.save(config)
    assert saved.choose(fresh=False) == [LATER, SET, GIVEN]


def test_a_saved_config_that_is_no_longer_legal_is_passed_over(saved: SavedConfig) -> None:
    illegal = {**SET.as_dict(), "bit_depth": 7}
    saved.path.write_text(json.dumps({"config_file": str(saved.config_file), "config": illegal}))
    assert saved.choose(fresh=False)[0] == GIVEN


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
        await eventually(lambda: saved.choose(fresh=False)[0].image_timeout_s == 0.75)
        keeping.cancel()


async def test_a_config_that_ran_in_the_last_moment_is_kept(saved: SavedConfig) -> None:
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        await daq.reconfigured()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False)[0] == SET


async def test_a_config_that_runs_is_kept_before_it_is_shown_and_its_disk_is_not_waited_for(
    saved: SavedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved.keep_now(SET)
    assert saved.choose(fresh=False) == [SET, GIVEN]
    monkeypatch.setattr(saved_config, "PREPARE_S", 0.01)
    answers = threading.Event()
    monkeypatch.setattr(saved, "save", lambda config: answers.wait(30))
    await saved.keep_now(GIVEN)  # returns all the same
    answers.set()


async def test_a_config_that_never_ran_is_not_kept(saved: SavedConfig) -> None:
    async with SimulatedDaq(GIVEN, restart_s=1e6) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        await asyncio.sleep(0.1)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False) == [GIVEN]


def test_a_kept_config_that_cannot_be_removed_is_one_clear_line(saved: SavedConfig) -> None:
    saved.path.mkdir()
    with pytest.raises(Unavailable, match=r"config\.json cannot be removed for --fresh"):
        saved.choose(fresh=True)


async def test_what_a_full_disk_refuses_is_told_and_kept_when_there_is_room(
    saved: SavedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_config, "RETRY_S", 0.05)
    full = saved.path.with_suffix(".new")
    full.symlink_to("/dev/full")
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        assert "No space left on device" in await saved.prepare(SET)
        await daq.configure({"image_timeout_s": 0.25})
        await eventually(lambda: "No space left on device" in daq.snapshot.health.warning)
        assert saved.choose(fresh=False) == [GIVEN]
        full.unlink()
        await eventually(lambda: daq.snapshot.health.warning == "")
        assert saved.choose(fresh=False) == [SET, GIVEN]
        assert await saved.prepare(SET) == ""
        keeping.cancel()


async def test_what_a_full_disk_refuses_is_kept_at_the_end_when_there_is_room(saved: SavedConfig) -> None:
    full = saved.path.with_suffix(".new")
    full.symlink_to("/dev/full")
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        await eventually(lambda: "No space left on device" in daq.snapshot.health.warning)
        full.unlink()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False)[0] == SET


async def test_a_disk_that_hangs_delays_no_answer_for_long_and_is_told(
    saved: SavedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_config, "PREPARE_S", 0.05)
    monkeypatch.setattr(saved_config, "RETRY_S", 0.05)
    hung, write = threading.Event(), saved_config.write_beside
    monkeypatch.setattr(saved_config, "write_beside", lambda *file: hung.wait(60) and write(*file))
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        assert "does not answer" in await saved.prepare(SET)
        await daq.configure({"image_timeout_s": 0.25})
        await eventually(lambda: "does not answer" in daq.snapshot.health.warning)
        hung.set()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False)[0] == SET


async def test_a_config_set_back_to_what_is_kept_is_no_trouble_any_more(
    saved: SavedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_config, "RETRY_S", 0.05)
    saved.path.with_suffix(".new").symlink_to("/dev/full")
    async with SimulatedDaq(GIVEN) as daq:
        keeping = asyncio.create_task(saved.keep(daq))
        await asyncio.sleep(0)
        await daq.configure({"image_timeout_s": 0.25})
        await eventually(lambda: daq.snapshot.health.warning != "")
        await daq.configure({"image_timeout_s": GIVEN.image_timeout_s})
        await eventually(lambda: daq.snapshot.health.warning == "")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert saved.choose(fresh=False) == [GIVEN]
