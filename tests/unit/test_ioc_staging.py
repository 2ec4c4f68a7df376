"""Staged config changes: partial, judged as a whole only when they are applied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig
from ioc.values.staging import Staging
from tests.processes.service import JUNGFRAU_2

CURRENT = DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})


def test_nothing_staged_shows_the_config_in_use() -> None:
    assert Staging().shown(CURRENT) == CURRENT.as_dict()
    assert Staging().ids_shown(CURRENT) == (0, 1)
    assert Staging().corners_shown(CURRENT) == (0, 0, 1023, 511, 0, 512, 1023, 1023)
    assert not Staging().pending(CURRENT)
    assert Staging().request(CURRENT) == {}


@given(st.integers(-1, 2**31))
def test_a_staged_value_is_pending_unless_it_is_the_one_in_use(user: int) -> None:
    staged = Staging().put("writer_user_id", user)
    assert staged.pending(CURRENT) == (user != CURRENT.writer_user_id)
    assert CURRENT.merge(staged.request(CURRENT)).writer_user_id == user


def test_two_arrays_become_the_module_positions() -> None:
    staged = Staging(module_ids=(1,), corners=(0, 0, 1023, 511))
    assert staged.request(CURRENT) == {"module_positions": {"1": [0, 0, 1023, 511]}}


@pytest.mark.parametrize(
    ("staging", "reason"),
    [
        (Staging(module_ids=(0,)), "8 numbers for the 1 modules"),
        (Staging(module_ids=(1, 1)), "twice"),
    ],
)
def test_arrays_that_do_not_match_are_refused(staging: Staging, reason: str) -> None:
    with pytest.raises(InvalidConfig, match=reason):
        staging.request(CURRENT)


def test_json_is_merged_into_what_is_staged() -> None:
    staged = Staging().put("writer_user_id", 5).put_json('{"image_timeout_s": 2}', CURRENT)
    assert staged.request(CURRENT) == {"writer_user_id": 5, "image_timeout_s": 2}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"no_such_key": 1}', '{"bit_depth": 7}', "[" * 100_000])
def test_json_that_is_no_legal_config_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        Staging().put_json(text, CURRENT)
